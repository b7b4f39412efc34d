//! Reports with pictures, their comparison, and options for better answers, as a user asks for them.

use std::sync::OnceLock;

use serde_json::Value;

use crate::util::{Dir, MODEL, Output, draw_catalogue, shop};

/// One shop for the tests that only read it; each writes its report into a folder of its own.
fn read_only() -> &'static Dir {
    static SHOP: OnceLock<Dir> = OnceLock::new();
    SHOP.get_or_init(shop)
}

fn photos(dir: &Dir, count: usize) -> Vec<String> {
    let table = std::fs::read_to_string(dir.path("cat/products.csv")).unwrap();
    let path = |line: &str| format!("cat/{}", line.split(',').next().unwrap());
    table.lines().skip(1).take(count).map(path).collect()
}

fn report(dir: &Dir, args: &[&str], folder: &str) -> (Value, String) {
    let start = ["eval", "--index", "shop", "-k", "1,8", "--report", folder, "--json"];
    dir.run(start.iter().chain(args)).exits(0);
    let json = std::fs::read_to_string(dir.path(folder).join("report.json")).unwrap();
    let page = std::fs::read_to_string(dir.path(folder).join("report.html")).unwrap();
    (serde_json::from_str(&json).unwrap(), page)
}

/// Checks that a page stands alone and is well formed: nothing is loaded, every element is closed.
#[track_caller]
fn stands_alone(page: &str) {
    let lower = page.to_lowercase();
    for foreign in ["http://", "https://", "<script", "<link", "@import", "url(", "src=\"//", "<iframe"] {
        assert!(!lower.contains(foreign), "the page mentions {foreign}");
    }
    for source in page.split("src=\"").skip(1) {
        assert!(source.starts_with("data:image/jpeg;base64,"), "{}", &source[..60.min(source.len())]);
    }
    assert!(lower.contains("prefers-color-scheme: dark"));
    const VOID: [&str; 7] = ["meta", "img", "br", "!doctype", "rect", "line", "hr"];
    let mut open: Vec<String> = Vec::new();
    let body = page.split_once("</style>").unwrap().1;
    for tag in body.split('<').skip(1) {
        let (inside, _) = tag.split_once('>').expect("a tag that ends");
        let name = inside.trim_end_matches('/').split_whitespace().next().unwrap_or_default().to_lowercase();
        if let Some(closed) = name.strip_prefix('/') {
            let last = if closed == "head" || closed == "html" { continue } else { open.pop() };
            assert_eq!(last.as_deref(), Some(closed), "before …{}", &tag[..80.min(tag.len())]);
        } else if !inside.ends_with('/') && !VOID.contains(&name.as_str()) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

#[test]
fn a_report_is_one_page_and_its_data() {
    let dir = read_only();
    let (json, page) = report(dir, &[], "runs/one");
    stands_alone(&page);
    assert_eq!(json["report"]["query_counts"]["scored"], 48);
    let interval = &json["accuracy"][0]["recall_at_k"][0];
    let recall = json["report"]["searches"][0]["recall_at_k"][0]["value"].as_f64().unwrap();
    assert!(interval["low"].as_f64().unwrap() < recall && recall < interval["high"].as_f64().unwrap());
    // What the columns of single queries say is what the average says.
    let places = json["per_query"]["searches"][0]["first_match"].as_array().unwrap();
    let first = places.iter().filter(|place| **place == 1).count() as f64;
    assert!((first / 48.0 - recall).abs() < 1e-9, "{recall}");
    let classes = json["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 12);
    let worst: Vec<f64> = classes.iter().map(|row| row["recall_at_1"].as_f64().unwrap()).collect();
    assert!(worst.is_sorted(), "worst first: {worst:?}");
    assert!(!json["super_classes"].as_array().unwrap().is_empty());
    let hardest = json["hardest"].as_array().unwrap();
    assert!(!hardest.is_empty(), "an untrained network fails somewhere");
    for case in hardest {
        assert_ne!(case["first_match"], 1, "{case}");
        assert_eq!(case["hits"].as_array().unwrap().len(), 6);
    }
    assert!(page.matches("data:image/jpeg;base64,").count() > 50, "pictures are inside");
    assert!(page.matches("<svg").count() == 4, "four charts");
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    // The sweep has exact search and seven widths.
    let sweep = json["ef_sweep"].as_array().unwrap();
    assert_eq!(sweep.len(), 8);
    assert!(sweep[7]["ann_recall"].as_f64().unwrap() > 0.99, "{sweep:?}");
    let scores = &json["scores"];
    assert!(scores["accepted_wrong"].as_f64().unwrap() <= 0.01);
}

#[test]
fn without_a_folder_reports_lie_by_the_index_s_name() {
    let dir = shop();
    dir.run(["eval", "--index", "./index-data/shop", "--exact", "-k", "1", "--report"]).exits(0);
    assert!(dir.path("runs/reports/shop/report.html").is_file());
    // A second report takes the place of the first.
    dir.run(["eval", "--index", "shop", "-k", "3", "--report", "--quiet"]).exits(0);
    let json = std::fs::read_to_string(dir.path("runs/reports/shop/report.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["report"]["searches"][0]["recall_at_k"][0]["k"], 3);
    let files = std::fs::read_dir(dir.path("runs/reports/shop")).unwrap().count();
    assert_eq!(files, 2, "nothing half written is left");
}

#[test]
fn hostile_names_stay_text() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let table = std::fs::read_to_string(dir.path("cat/products.csv")).unwrap();
    let mut lines = table.lines();
    let mut hostile = format!("{}\n", lines.next().unwrap());
    for line in lines {
        let path = line.split(',').next().unwrap();
        let class: String = line.split(',').nth(1).unwrap().chars().rev().take(3).collect();
        hostile += &format!("{path},\"<script>alert('{class}')</script>&\"\"'\",\"</style><b onload=x>\"\n");
    }
    dir.write("cat/hostile.csv", hostile);
    let build = ["index", "build", "--data", "cat/hostile.csv", "--name", "shop"];
    dir.run(build.into_iter().chain(MODEL)).exits(0);
    let (_, page) = report(&dir, &[], "out");
    stands_alone(&page);
    assert!(page.contains("&lt;script&gt;alert("), "told, but as text");
    assert!(!page.contains("<b onload"), "no markup of theirs");
    let photo = photos(&dir, 1).remove(0);
    dir.run(["search", &photo, "--index", "shop", "--html", "hits.html"]).exits(0);
    stands_alone(&std::fs::read_to_string(dir.path("hits.html")).unwrap());
}

#[test]
fn an_unlabelled_catalogue_has_a_report_too() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let build = ["index", "build", "--data", "cat", "--format", "flat", "--name", "shop"];
    dir.run(build.into_iter().chain(MODEL)).exits(0);
    let (json, page) = report(&dir, &["--try", "all"], "out");
    stands_alone(&page);
    assert_eq!(json["scores"], Value::Null);
    assert!(page.contains("No query could be scored."));
}

fn compare(dir: &Dir, a: &str, b: &str) -> Output {
    dir.run(["eval", "--compare", a, b, "--json"])
}

#[test]
fn comparing_says_which_is_better_and_whether_that_is_chance() {
    let dir = read_only();
    report(dir, &[], "runs/a");
    report(dir, &[], "runs/b");
    let same = compare(dir, "runs/a", "runs/b/report.json").exits(0).json();
    for row in same["rows"].as_array().unwrap() {
        assert_eq!(
            (&row["verdict"], &row["difference"]["p_value"]),
            (&"neither".into(), &1.0.into()),
            "{row}"
        );
    }
    // A report that found every match first is better by more than chance.
    let mut json: Value =
        serde_json::from_slice(&std::fs::read(dir.path("runs/b/report.json")).unwrap()).unwrap();
    for columns in json["per_query"]["searches"].as_array_mut().unwrap() {
        for (column, best) in [("first_match", 1), ("map_at_r", 1), ("r_precision", 1)] {
            columns[column].as_array_mut().unwrap().fill(best.into());
        }
    }
    dir.write("runs/best/report.json", json.to_string());
    let found = compare(dir, "runs/a", "runs/best").exits(0).json();
    let row = &found["rows"][0];
    assert_eq!(
        (&row["search"], &row["measure"], &row["verdict"]),
        (&"exact".into(), &"Recall@1".into(), &"b".into())
    );
    assert!(row["difference"]["interval"]["low"].as_f64().unwrap() > 0.0, "{row}");
    let turned = compare(dir, "runs/best", "runs/a").exits(0).json();
    assert_eq!(turned["rows"][0]["verdict"], "a");
    let text = dir.run(["eval", "--compare", "runs/a", "runs/best"]).exits(0).stdout;
    assert!(text.contains("B is better") && text.contains("48 queries scored by both"), "{text}");
}

#[test]
fn reports_of_other_queries_are_not_compared() {
    let dir = read_only();
    report(dir, &["--exact"], "runs/own");
    report(dir, &["--exact", "--queries", "cat"], "runs/queries");
    let whole = std::fs::read_to_string(dir.path("runs/own/report.json")).unwrap();
    let mut other: Value = serde_json::from_str(&whole).unwrap();
    other["per_query"]["keys"][4] = "another.jpg".into();
    dir.write("runs/other/report.json", other.to_string());
    compare(dir, "runs/own", "runs/other").exits(2).complains_of(&["number 5", "another.jpg", "1 of them"]);
    for (list, value) in [("keys", "x"), ("classes", "x")] {
        let mut short: Value = serde_json::from_str(&whole).unwrap();
        short["per_query"][list].as_array_mut().unwrap().push(value.into());
        dir.write("runs/short/report.json", short.to_string());
        compare(dir, "runs/own", "runs/short").exits(2).complains_of(&["runs/short", "damaged"]);
    }
    let mut newer: Value = serde_json::from_str(&whole).unwrap();
    newer["format"] = 99.into();
    dir.write("runs/newer/report.json", newer.to_string());
    compare(dir, "runs/newer", "runs/own").exits(2).complains_of(&["runs/newer", "format 99"]);
    compare(dir, "runs/own", "runs/nowhere").exits(2).complains_of(&["runs/nowhere", "no report"]);
    dir.write("runs/text.json", "no report");
    compare(dir, "runs/text.json", "runs/own").exits(2).complains_of(&["runs/text.json", "no report"]);
    dir.run(["eval"]).exits(2).complains_of(&["--index"]);
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_work() {
    let dir = shop();
    dir.write("taken", "a file");
    let before = dir.snapshot();
    for folder in ["taken", "taken/deeper"] {
        dir.run(["eval", "--index", "shop", "--report", folder]).exits(2).complains_of(&["taken"]);
    }
    dir.run(["eval", "--index", "shop", "--report", "out", "--false-accepts", "2"])
        .exits(2)
        .complains_of(&["--false-accepts", "0 to 1"]);
    let photo = photos(&dir, 1).remove(0);
    dir.run(["search", &photo, "--index", "shop", "--html", "taken/hits.html"])
        .exits(2)
        .complains_of(&["taken"]);
    assert_eq!(dir.snapshot(), before);
}

#[test]
fn every_option_is_measured() {
    let dir = read_only();
    let args = ["--queries", "cat", "--try", "all", "--exact"];
    let (json, page) = report(dir, &args, "runs/options");
    stands_alone(&page);
    let rows = json["options"].as_array().unwrap();
    assert_eq!(rows.len(), 11, "plain and ten options");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    for name in ["plain", "--views flip", "--expand 5", "--rerank", "derive --augment 5", "combined"] {
        assert!(names.contains(&name), "{name} is typed like this: {names:?}");
    }
    for row in rows {
        let name = row["name"].as_str().unwrap();
        assert!(page.contains(name), "{name} is on the page");
        let recall = row["recall_at_1"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&recall) && row["queries"].as_u64().unwrap() > 0, "{row}");
    }
    // The queries are the gallery's own pictures: plainly, each finds itself.
    assert_eq!(rows[0]["recall_at_1"], 1.0);
    let only = report(dir, &["--try", "rerank,expand", "--exact"], "runs/two").0;
    assert_eq!(only["options"].as_array().unwrap().len(), 3);
    dir.run(["eval", "--index", "shop", "--report", "x", "--try", "magic"])
        .exits(2)
        .complains_of(&["magic", "rerank"]);
}

#[test]
fn options_change_what_eval_measures() {
    let dir = read_only();
    let recall = |args: &[&str]| {
        let start = ["eval", "--index", "shop", "--exact", "-k", "1", "--json"];
        let found = dir.run(start.iter().chain(args)).exits(0).json();
        found["searches"][0]["map_at_r"].as_f64().unwrap()
    };
    let plain = recall(&[]);
    assert_ne!(recall(&["--expand"]), plain);
    assert_ne!(recall(&["--rerank"]), plain);
    dir.run(["eval", "--index", "shop", "--views", "flip"]).exits(2).complains_of(&["--queries"]);
    dir.run(["eval", "--index", "shop", "--one-per-class"]).exits(2).complains_of(&["--queries"]);
}

fn hits(output: &Output) -> Vec<Value> {
    output.json()["results"][0]["hits"].as_array().unwrap().clone()
}

#[test]
fn searching_with_options() {
    let dir = read_only();
    let all = photos(dir, 4);
    let photo = all[0].as_str();
    let search = |args: &[&str]| {
        let start = ["search", photo, "--index", "shop", "-k", "8", "--exact", "--json"];
        dir.run(start.iter().chain(args))
    };
    let plain = hits(&search(&[]).exits(0));
    // The whole picture is the picture.
    assert_eq!(hits(&search(&["--box", "0,0,48,48"]).exits(0)), plain);
    assert_eq!(hits(&search(&["--box", "0.0,0.0,1.0,1.0"]).exits(0)), plain);
    assert_ne!(hits(&search(&["--box", "4,4,30,30"]).exits(0)), plain);
    let outside = search(&["--box", "40,0,20,20"]).exits(1);
    assert!(outside.json()["results"][0]["error"].as_str().unwrap().contains("48 × 48"));
    search(&["--box", "1,2,3"]).exits(2).complains_of(&["--box", "1,2,3"]);
    for views in ["flip", "crops"] {
        let found = hits(&search(&["--views", views]).exits(0));
        assert_eq!(found.len(), 8, "{views}");
        assert_ne!(found, plain, "{views}");
    }
    // One of each class, the best of it, in the order of the plain ranking.
    let grouped = hits(&search(&["--one-per-class"]).exits(0));
    let classes: Vec<&str> = grouped.iter().map(|hit| hit["class"].as_str().unwrap()).collect();
    let mut different = classes.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!((classes.len(), different.len()), (8, 8), "{classes:?}");
    assert_eq!(grouped[0], plain[0]);
    // Re-ranking loses nothing.
    let reranked = hits(&search(&["--rerank", "48", "--expand", "3", "--alpha", "2"]).exits(0));
    assert_eq!(reranked.len(), 8);
    // A threshold leaves out what scores less.
    let least = plain[2]["score"].as_f64().unwrap().to_string();
    assert_eq!(hits(&search(&["--threshold", &least]).exits(0)).len(), 3);
    let cut = ["--box", "4,4,30,30", "--threshold", "1.0"];
    let none = search(&cut).exits(0);
    assert_eq!((hits(&none).len(), &none.json()["results"][0]["no_match"]), (0, &true.into()));
    let text = dir.run(["search", photo, "--index", "shop"].iter().chain(&cut)).exits(0).stdout;
    assert!(text.contains("no match"), "{text}");
}

#[test]
fn several_photographs_of_one_item_are_one_question() {
    let dir = read_only();
    let all = photos(dir, 3);
    let start = ["--index", "shop", "-k", "6", "--exact", "--together", "--json"];
    let photos = |names: &[&str]| -> Vec<String> {
        ["search"].iter().chain(names).chain(&start).map(|arg| (*arg).to_owned()).collect()
    };
    let found = dir.run(photos(&[&all[0], &all[1], &all[2]])).exits(0).json();
    assert_eq!(found["results"].as_array().unwrap().len(), 1);
    assert_eq!(found["results"][0]["together_with"].as_array().unwrap().len(), 2);
    // The same photograph twice is that photograph.
    let twice = hits(&dir.run(photos(&[&all[0], &all[0]])).exits(0));
    let once = hits(&dir.run(photos(&[&all[0]])).exits(0));
    assert_eq!(
        twice.iter().map(|h| &h["id"]).collect::<Vec<_>>(),
        once.iter().map(|h| &h["id"]).collect::<Vec<_>>()
    );
    // An unreadable one is told, and the others are searched with.
    let partly = dir.run(photos(&[&all[0], "nowhere.jpg"])).exits(1).complains_of(&["nowhere.jpg"]).json();
    assert_eq!(partly["results"].as_array().unwrap().len(), 2);
    assert_eq!(partly["results"][1]["hits"].as_array().unwrap().len(), 6);
}

#[test]
fn a_derived_index_transforms_queries_by_itself() {
    let dir = shop();
    let derive = ["index", "derive", "--index", "shop", "--name", "better"];
    let made = dir.run(derive.iter().chain(&["--whiten", "16", "--augment", "2", "--json"])).exits(0).json();
    assert_eq!((&made["items"], &made["dim"]), (&48.into(), &16.into()));
    let info = dir.run(["index", "info", "--index", "better"]).exits(0).stdout;
    assert!(info.contains("whitening: PCA, 16 of") && info.contains("augmented: 2 neighbours"), "{info}");
    let photo = photos(&dir, 1).remove(0);
    let found = hits(&dir.run(["search", &photo, "--index", "better", "-k", "3", "--json"]).exits(0));
    assert_eq!(format!("cat/{}", found[0]["key"].as_str().unwrap()), photo, "{found:?}");
    let eval = ["eval", "--index", "better", "--queries", "cat", "-k", "1", "--json"];
    let report = dir.run(eval).exits(0).json();
    assert_eq!(report["dim"], 16);
    assert!(report["searches"][0]["recall_at_k"][0]["value"].as_f64().unwrap() > 0.9, "{report}");
    dir.run(["eval", "--index", "better", "-k", "1"]).exits(0);
    // Pictures added later are whitened alike: an index of all but some, plus those, finds them again.
    let key = photo.strip_prefix("cat/").unwrap();
    dir.run(["index", "derive", "--index", "shop", "--name", "whitened", "--whiten", "16"]).exits(0);
    dir.run(["index", "remove", key, "--index", "whitened"]).exits(0);
    dir.run(["index", "add", "--index", "whitened", "--data", "cat"]).exits(0);
    let found = hits(&dir.run(["search", &photo, "--index", "whitened", "-k", "1", "--json"]).exits(0));
    assert_eq!(found[0]["key"], key);
    assert!(found[0]["score"].as_f64().unwrap() > 0.999, "{found:?}");
    // What makes no sense is refused.
    dir.run(derive.iter().chain(&["--whiten", "16"])).exits(2).complains_of(&["better", "already"]);
    dir.run(["index", "derive", "--index", "better", "--name", "x", "--whiten", "4"])
        .exits(2)
        .complains_of(&["derived itself"]);
    dir.run(["index", "derive", "--index", "shop", "--name", "x", "--whiten", "9999"])
        .exits(2)
        .complains_of(&["9999", "span"]);
    dir.run(["index", "derive", "--index", "shop", "--name", "x"])
        .exits(2)
        .complains_of(&["nothing to derive"]);
    assert!(!dir.path("index-data/x").exists());
}

#[test]
fn answers_as_a_page_and_never_as_pictures_into_a_pipe() {
    let dir = read_only();
    let photo = photos(dir, 1).remove(0);
    let search =
        ["search", photo.as_str(), "nowhere.jpg", "--index", "shop", "-k", "5", "--html", "runs/hits.html"];
    std::fs::create_dir_all(dir.path("runs")).unwrap();
    let output = dir.run(search.iter().chain(&["--pictures", "kitty"])).exits(1);
    assert!(!output.stdout.contains('\x1b'), "no pictures into a pipe");
    let page = std::fs::read_to_string(dir.path("runs/hits.html")).unwrap();
    stands_alone(&page);
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 6, "the photograph and five hits");
    assert!(page.contains("nowhere.jpg: the file is missing"));
    let printed = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(printed.matches("nowhere.jpg").count(), 1, "told once: {printed}");
    dir.run(search[..2].iter().chain(&["--index", "shop", "--pictures", "telegraph"]))
        .exits(2)
        .complains_of(&["telegraph", "sixel"]);
}
