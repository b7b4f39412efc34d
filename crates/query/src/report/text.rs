//! A report as text for a terminal: one column per way of searching, then what must be known to read it.

use std::fmt::Write as _;

use super::{AtK, LoneQueries, Protocol, Report, SearchKind, SearchReport};

/// Width of a column of numbers.
const COLUMN: usize = 10;

/// The report as aligned lines, each ended by a line break.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = header(&mut out, report)
        .and_then(|()| table(&mut out, report))
        .and_then(|()| notes(&mut out, report));
    out
}

fn header(out: &mut String, report: &Report) -> std::fmt::Result {
    match report.protocol {
        Protocol::LeaveOneOut => {
            writeln!(out, "{}: each item against all others (leave-one-out)", report.gallery)?
        }
        Protocol::QueryAgainstGallery => {
            writeln!(out, "{}: queries from {}", report.gallery, report.queries)?
        }
    }
    let counts = &report.query_counts;
    writeln!(
        out,
        "gallery {} items, {} classes; {} queries, {} scored; {} dimensions, model {}",
        report.gallery_items,
        report.gallery_classes,
        counts.total,
        counts.scored,
        report.dim,
        short(&report.model),
    )
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

fn table(out: &mut String, report: &Report) -> std::fmt::Result {
    write!(out, "\n{:<16}", "")?;
    for entry in &report.searches {
        write!(out, "{:>COLUMN$}", name(entry))?;
    }
    writeln!(out)?;
    let row = |out: &mut String, label: &str, value: &dyn Fn(&SearchReport) -> Option<f64>| {
        write!(out, "{label:<16}")?;
        for entry in &report.searches {
            match value(entry) {
                Some(value) => write!(out, "{value:>COLUMN$.4}")?,
                None => write!(out, "{:>COLUMN$}", "–")?,
            }
        }
        writeln!(out)
    };
    let ks =
        |of: fn(&SearchReport) -> &Vec<AtK>| report.searches.iter().map(of).find(|list| !list.is_empty());
    for (place, at) in ks(|entry| &entry.recall_at_k).into_iter().flatten().enumerate() {
        row(out, &label("Recall", at), &|entry| entry.recall_at_k.get(place)?.value)?;
    }
    row(out, "MAP@R", &|entry| entry.map_at_r)?;
    row(out, "R-Precision", &|entry| entry.r_precision)?;
    for (place, at) in ks(|entry| &entry.ann_recall).into_iter().flatten().enumerate() {
        row(out, &label("ann_recall", at), &|entry| entry.ann_recall.get(place)?.value)?;
    }
    write!(out, "{:<16}", "queries/s")?;
    for entry in &report.searches {
        write!(out, "{:>COLUMN$.0}", report.query_counts.total as f64 / entry.seconds.max(1e-9))?;
    }
    writeln!(out)
}

fn name(entry: &SearchReport) -> &'static str {
    match entry.search {
        SearchKind::Exact => "exact",
        SearchKind::Graph { .. } => "graph",
    }
}

fn label(name: &str, at: &AtK) -> String {
    format!("{name}@{}{}", at.k, if at.used < at.k { "*" } else { "" })
}

fn notes(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out)?;
    let counts = &report.query_counts;
    let why = match report.protocol {
        Protocol::LeaveOneOut => "the only image of their class",
        Protocol::QueryAgainstGallery => "their class is not in the gallery",
    };
    let rule = match counts.rule {
        LoneQueries::Exclude => "left out of the averages",
        LoneQueries::CountAsMiss => "counted as misses",
    };
    writeln!(out, "queries without a match ({why}): {}, {rule}", counts.without_match)?;
    if counts.unlabelled > 0 {
        writeln!(out, "queries without a class: {}, not scored", counts.unlabelled)?;
    }
    if report.gallery_unlabelled > 0 {
        writeln!(out, "gallery items without a class: {}, they match nothing", report.gallery_unlabelled)?;
    }
    if let Some(at) = report.searches.iter().flat_map(|entry| &entry.recall_at_k).find(|at| at.used < at.k) {
        writeln!(out, "* only {} neighbours to find: K cut to {}", at.used, at.used)?;
    }
    for entry in &report.searches {
        let name = name(entry);
        if let SearchKind::Graph { ef_search } = entry.search {
            writeln!(out, "graph: ef_search {ef_search}, rankings of {} places", report.depth)?;
        }
        if entry.short_lists > 0 {
            writeln!(out, "{name}: {} queries got fewer neighbours than asked for", entry.short_lists)?;
        }
        if entry.ties > 0 {
            writeln!(
                out,
                "{name}: {} queries with ties between match and non-match, counted against us",
                entry.ties
            )?;
        }
        if entry.duplicates > 0 {
            writeln!(out, "{name}: {} queries have an identical picture in the gallery", entry.duplicates)?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::QueryCounts;

    pub(crate) fn example() -> Report {
        let at = |k, used, value| AtK { k, used, value: Some(value) };
        let exact = SearchReport {
            search: SearchKind::Exact,
            recall_at_k: vec![at(1, 1, 0.5), at(1000, 299, 1.0)],
            map_at_r: Some(0.25),
            r_precision: Some(0.3),
            ann_recall: vec![],
            short_lists: 0,
            ties: 0,
            duplicates: 2,
            seconds: 0.5,
        };
        let graph = SearchReport {
            search: SearchKind::Graph { ef_search: 300 },
            ann_recall: vec![at(1, 1, 0.99), at(1000, 299, 0.9)],
            short_lists: 1,
            ties: 3,
            duplicates: 0,
            ..exact.clone()
        };
        Report {
            gallery: "shop".into(),
            queries: "shop".into(),
            protocol: Protocol::LeaveOneOut,
            model: "0123456789abcdef0123".into(),
            dim: 64,
            gallery_items: 300,
            gallery_classes: 40,
            gallery_unlabelled: 0,
            query_counts: QueryCounts {
                total: 300,
                scored: 296,
                without_match: 4,
                unlabelled: 0,
                rule: LoneQueries::Exclude,
            },
            depth: 299,
            searches: vec![exact, graph],
        }
    }

    #[test]
    fn whole_page() {
        let expected = "\
shop: each item against all others (leave-one-out)
gallery 300 items, 40 classes; 300 queries, 296 scored; 64 dimensions, model 0123456789ab

                     exact     graph
Recall@1            0.5000    0.5000
Recall@1000*        1.0000    1.0000
MAP@R               0.2500    0.2500
R-Precision         0.3000    0.3000
ann_recall@1             –    0.9900
ann_recall@1000*         –    0.9000
queries/s              600       600

queries without a match (the only image of their class): 4, left out of the averages
* only 299 neighbours to find: K cut to 299
exact: 2 queries have an identical picture in the gallery
graph: ef_search 300, rankings of 299 places
graph: 1 queries got fewer neighbours than asked for
graph: 3 queries with ties between match and non-match, counted against us
";
        assert_eq!(render(&example()), expected);
    }

    #[test]
    fn nothing_scored_shows_dashes() {
        let mut report = example();
        report.protocol = Protocol::QueryAgainstGallery;
        report.query_counts =
            QueryCounts { scored: 0, without_match: 0, unlabelled: 300, ..report.query_counts };
        for entry in &mut report.searches {
            (entry.map_at_r, entry.r_precision) = (None, None);
        }
        let text = render(&report);
        assert!(text.contains("MAP@R                    –         –"), "{text}");
        assert!(text.contains("queries without a class: 300, not scored"), "{text}");
        assert!(text.contains("their class is not in the gallery"), "{text}");
    }
}
