//! Retrieval measures of one query, as pure functions of its ranking. Averages over queries are the caller's.
//!
//! A *ranking* is the list of a query's neighbours, best first, **without the query itself** (see [`without_self`]).
//! A neighbour is a *match* when it has the query's class; `R` is the number of matches the gallery holds, found or
//! not. A list shorter than asked for simply has no more matches: what a search did not return counts as missed.
//!
//! Names follow the metric-learning literature: [`recall_at_k`] asks whether *any* of the first K is a match (Song et
//! al. 2016, "Deep Metric Learning via Lifted Structured Feature Embedding", the Stanford Online Products protocol; in
//! information retrieval this is a hit rate, not recall). [`r_precision`] and [`map_at_r`] are those of Musgrave et al.
//! 2020, "A Metric Learning Reality Check", section 3.2. [`ann_recall`] compares an approximate search with an exact one
//! and knows nothing of classes.

/// Takes a query's own id out of its neighbours and cuts the list to `k`.
///
/// Ask the search for `k + 1` neighbours first. The id is removed wherever it stands: an exact duplicate may tie with
/// the query and come before it, so dropping the first place would drop the wrong item. When the search missed the
/// query itself, the last neighbour goes instead.
pub fn without_self<T>(neighbours: Vec<T>, own: u64, k: usize, id: impl Fn(&T) -> u64) -> Vec<T> {
    neighbours.into_iter().filter(|neighbour| id(neighbour) != own).take(k).collect()
}

/// Whether any of the first `k` of `ranking` has the class `query`. False for `k = 0`.
///
/// `k` beyond the list looks at the whole list.
pub fn recall_at_k<C: PartialEq>(query: &C, ranking: &[C], k: usize) -> bool {
    ranking.iter().take(k).any(|class| class == query)
}

/// The share of matches among the first R places, R = `relevant`: `(1/R) Σ_{i≤R} h_i`, `h_i` = 1 for a match at place i.
///
/// `None` when the gallery has no match (`relevant` = 0): the value is undefined, and the caller says what it does with
/// such queries. Needs a ranking of at least R places to mean what it says; missing places count as misses.
pub fn r_precision<C: PartialEq>(query: &C, ranking: &[C], relevant: usize) -> Option<f64> {
    if relevant == 0 {
        return None;
    }
    let found = ranking.iter().take(relevant).filter(|class| *class == query).count();
    Some(found as f64 / relevant as f64)
}

/// Mean average precision at R, R = `relevant`: `(1/R) Σ_{i≤R} P(i)·h_i` with `P(i) = (1/i) Σ_{j≤i} h_j`.
///
/// Unlike mean average precision it stops at place R and divides by R, not by the number of matches found, so it rewards
/// both finding the matches and putting them first. `None` when `relevant` = 0.
pub fn map_at_r<C: PartialEq>(query: &C, ranking: &[C], relevant: usize) -> Option<f64> {
    if relevant == 0 {
        return None;
    }
    let mut matches = 0usize;
    let mut sum = 0.0;
    for (place, class) in ranking.iter().take(relevant).enumerate() {
        if class == query {
            matches += 1;
            sum += matches as f64 / (place + 1) as f64;
        }
    }
    Some(sum / relevant as f64)
}

/// The share of the `k` exact nearest neighbours that an approximate search returned among its first `k`, whatever
/// their order.
///
/// Both lists hold ids, best first. The yardstick is the first `k` of `exact` (fewer when the gallery is smaller); an
/// approximate list that came back short loses what it lacks. 1 when there was nothing to find.
pub fn ann_recall(approximate: &[u64], exact: &[u64], k: usize) -> f64 {
    let exact = &exact[..k.min(exact.len())];
    if exact.is_empty() {
        return 1.0;
    }
    let wanted: std::collections::HashSet<u64> = exact.iter().copied().collect();
    let found: std::collections::HashSet<u64> =
        approximate.iter().take(k).copied().filter(|id| wanted.contains(id)).collect();
    found.len() as f64 / wanted.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ranking of which place i is a match when `hits[i]` is 1.
    fn ranking(hits: &[u8]) -> Vec<u32> {
        hits.iter().map(|&hit| if hit == 1 { 7 } else { 9 }).collect()
    }

    // r_precision and mean_average_precision_at_r of pytorch-metric-learning 0.9.90's accuracy_calculator:
    //   for h in ([1,0,1],[0,1,1],[1,1,0],[0,0,0]):
    //       knn = np.where(np.array([h]) == 1, 7, 9)
    //       print(r_precision(knn, np.array([[7]]), False, {7: 3}, False),
    //             mean_average_precision_at_r(knn, np.array([[7]]), False, {7: 3}, False))
    #[test]
    fn three_relevant() {
        let cases = [
            ([1, 0, 1], 2.0 / 3.0, 0.5555555555555555, true),
            ([0, 1, 1], 2.0 / 3.0, 0.38888888888888884, false),
            ([1, 1, 0], 2.0 / 3.0, 0.6666666666666666, true),
            ([0, 0, 0], 0.0, 0.0, false),
        ];
        for (hits, precision, map, first) in cases {
            let ranking = ranking(&hits);
            assert!((r_precision(&7, &ranking, 3).unwrap() - precision).abs() < 1e-12, "{hits:?}");
            assert!((map_at_r(&7, &ranking, 3).unwrap() - map).abs() < 1e-12, "{hits:?}");
            assert_eq!(recall_at_k(&7, &ranking, 1), first, "{hits:?}");
        }
    }

    // The same library on 12 unit vectors in the plane, labels 0,0,0,0,0,1,1,1,1,2,2,3, query = gallery:
    //   knn_labels = labels[np.argsort(-(e @ e.T - 3 * np.eye(12)), axis=1)[:, :11]]
    //   mask = labels != 3   (a class of one image has no match: left out, as the library does)
    //   q, knn = labels[mask][:, None], knn_labels[mask]; counts = {0: 5, 1: 4, 2: 2, 3: 1}
    //   precision_at_k(knn, q, 1, False)                                  0.45454545454545453
    //   np.mean(np.any(knn[:, :2] == q, axis=1)), the same with 5         0.6363636363636364, 0.9090909090909091
    //   r_precision(knn, q, True, counts, False)                          0.32575757575757575
    //   mean_average_precision_at_r(knn, q, True, counts, False)          0.23106060606060605
    #[test]
    fn agrees_with_the_reference_library() {
        let labels = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2];
        let rankings: [[u32; 11]; 11] = [
            [0, 3, 0, 2, 0, 1, 1, 1, 0, 1, 2],
            [1, 1, 0, 0, 2, 3, 0, 1, 2, 0, 1],
            [2, 0, 3, 1, 0, 0, 1, 2, 1, 1, 0],
            [3, 2, 0, 0, 0, 1, 1, 1, 2, 1, 0],
            [0, 3, 0, 2, 0, 1, 1, 1, 0, 1, 2],
            [1, 0, 0, 0, 3, 0, 2, 0, 2, 1, 1],
            [1, 0, 0, 0, 3, 0, 2, 0, 1, 2, 1],
            [1, 0, 2, 2, 0, 3, 0, 0, 1, 0, 1],
            [2, 1, 0, 2, 0, 3, 0, 0, 0, 1, 1],
            [1, 1, 0, 2, 0, 3, 0, 0, 0, 1, 1],
            [0, 3, 0, 0, 0, 1, 1, 2, 1, 1, 0],
        ];
        let relevant = [4, 3, 1, 0];
        let mean = |value: &dyn Fn(&u32, &[u32], usize) -> f64| {
            let sum: f64 = labels
                .iter()
                .zip(&rankings)
                .map(|(label, row)| value(label, row, relevant[*label as usize]))
                .sum();
            sum / labels.len() as f64
        };
        let recall = |k: usize| mean(&|label, row, _| f64::from(u8::from(recall_at_k(label, row, k))));
        assert!((recall(1) - 0.45454545454545453).abs() < 1e-12);
        assert!((recall(2) - 0.6363636363636364).abs() < 1e-12);
        assert!((recall(5) - 0.9090909090909091).abs() < 1e-12);
        let precision = mean(&|label, row, r| r_precision(label, row, r).unwrap());
        assert!((precision - 0.32575757575757575).abs() < 1e-12);
        let map = mean(&|label, row, r| map_at_r(label, row, r).unwrap());
        assert!((map - 0.23106060606060605).abs() < 1e-12);
    }

    #[test]
    fn nothing_to_find_is_undefined_not_zero() {
        assert_eq!(r_precision(&1, &[2, 3], 0), None);
        assert_eq!(map_at_r(&1, &[2, 3], 0), None);
        assert!(!recall_at_k(&1, &[2, 3], 5));
        assert!(!recall_at_k(&1, &[1], 0));
        assert_eq!(ann_recall(&[], &[], 3), 1.0);
    }

    #[test]
    fn a_short_list_counts_as_misses() {
        assert_eq!(r_precision(&1, &[1], 4), Some(0.25));
        assert_eq!(map_at_r(&1, &[1], 4), Some(0.25));
        assert_eq!(ann_recall(&[5], &[5, 6], 2), 0.5);
        assert_eq!(ann_recall(&[5, 5], &[5, 6], 2), 0.5, "an id returned twice counts once");
        assert_eq!(ann_recall(&[6, 5], &[5, 6], 2), 1.0, "order does not matter");
        assert_eq!(ann_recall(&[6, 5], &[5, 6], 1), 0.0, "only the first k count");
        assert_eq!(ann_recall(&[5, 6], &[5, 6], 10), 1.0, "k beyond the gallery");
    }

    #[test]
    fn self_goes_wherever_it_stands() {
        let drop = |list: &[u64], k| without_self(list.to_vec(), 4, k, |id| *id);
        assert_eq!(drop(&[4, 1, 2], 2), [1, 2]);
        assert_eq!(drop(&[1, 4, 2], 2), [1, 2], "a duplicate tied with the query and came first");
        assert_eq!(drop(&[1, 2, 3], 2), [1, 2], "the search missed the query: the last goes");
    }

    /// The definitions written out with index loops and no early ends.
    fn literal(query: u8, ranking: &[u8], relevant: usize, k: usize) -> (bool, Option<f64>, Option<f64>) {
        let at = |place: usize| place < ranking.len() && ranking[place] == query;
        let mut any = false;
        for place in 0..k {
            any = any || at(place);
        }
        if relevant == 0 {
            return (any, None, None);
        }
        let (mut hits, mut average) = (0.0, 0.0);
        for i in 0..relevant {
            let mut before = 0.0;
            for j in 0..=i {
                before += f64::from(u8::from(at(j)));
            }
            if at(i) {
                hits += 1.0;
                average += before / (i + 1) as f64;
            }
        }
        (any, Some(hits / relevant as f64), Some(average / relevant as f64))
    }

    proptest! {
        #[test]
        fn agrees_with_the_literal_loops(
            ranking in prop::collection::vec(0u8..4, 0..40), extra in 0usize..10, k in 0usize..50,
        ) {
            let relevant = ranking.iter().filter(|class| **class == 0).count() + extra;
            let (any, precision, map) = literal(0, &ranking, relevant, k);
            prop_assert_eq!(recall_at_k(&0, &ranking, k), any);
            let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-12,
                (a, b) => a == b,
            };
            prop_assert!(close(r_precision(&0, &ranking, relevant), precision));
            prop_assert!(close(map_at_r(&0, &ranking, relevant), map));
        }

        #[test]
        fn bounds_and_order(ranking in prop::collection::vec(0u8..3, 1..40), extra in 0usize..5) {
            let relevant = ranking.iter().filter(|class| **class == 0).count() + extra;
            if let (Some(precision), Some(map)) =
                (r_precision(&0, &ranking, relevant), map_at_r(&0, &ranking, relevant))
            {
                // P(i) ≤ 1, so averaging it over the matches cannot exceed their share.
                prop_assert!((0.0..=1.0).contains(&precision) && map <= precision + 1e-12);
            }
            let recalls: Vec<bool> = (0..=ranking.len()).map(|k| recall_at_k(&0, &ranking, k)).collect();
            prop_assert!(recalls.is_sorted(), "recall_at_k grows with k");
        }

        #[test]
        fn ann_recall_is_the_overlap(
            found in prop::collection::hash_set(0u64..30, 0..20), exact in prop::collection::hash_set(0u64..30, 1..20),
            k in 1usize..25,
        ) {
            let (found, exact): (Vec<u64>, Vec<u64>) = (found.into_iter().collect(), exact.into_iter().collect());
            let mut overlap = 0;
            for id in exact.iter().take(k) {
                if found.iter().take(k).any(|other| other == id) {
                    overlap += 1;
                }
            }
            let expected = f64::from(overlap) / exact.len().min(k) as f64;
            prop_assert!((ann_recall(&found, &exact, k) - expected).abs() < 1e-12);
        }
    }
}
