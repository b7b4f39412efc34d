//! One answer per class: the best photograph of each product.

use std::collections::HashSet;

use semblance_index::{Cancel, Neighbor};

use super::{ItemIndex, Result};

/// Searches `n` queries for `k` neighbours each.
pub(super) type Search<'a> = dyn Fn(&[f32], usize, usize) -> Result<Vec<Vec<Neighbor>>> + 'a;

/// The first `k` different classes of each query's ranking, each by its best item. Searches wider and wider until there
/// are enough, or nothing more is to be found.
pub(super) fn one_per_class(
    index: &dyn ItemIndex,
    queries: &[f32],
    n: usize,
    k: usize,
    cancel: &Cancel,
    search: &Search<'_>,
) -> Result<Vec<Vec<Neighbor>>> {
    let dim = index.dim();
    let mut answers = vec![Vec::new(); n];
    let mut open: Vec<usize> = (0..n).collect();
    let mut width = k.saturating_mul(4);
    while !open.is_empty() {
        let rows: Vec<f32> =
            open.iter().flat_map(|query| &queries[query * dim..(query + 1) * dim]).copied().collect();
        let found = search(&rows, open.len(), width)?;
        let class = |id| {
            cancel.check()?;
            index.class(id)
        };
        let mut short = Vec::new();
        for (query, list) in open.into_iter().zip(found) {
            let more = list.len() >= width && width < index.len();
            answers[query] = first_of_each(list, class)?;
            if answers[query].len() < k && more {
                short.push(query);
            }
        }
        open = short;
        width = width.saturating_mul(4).min(index.len());
    }
    answers.iter_mut().for_each(|list| list.truncate(k));
    Ok(answers)
}

/// The first item of each class, in the same order; every item without a class stays.
pub fn first_of_each(
    list: Vec<Neighbor>,
    class: impl Fn(u64) -> Result<Option<String>>,
) -> Result<Vec<Neighbor>> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for neighbor in list {
        if class(neighbor.id)?.is_none_or(|class| seen.insert(class)) {
            kept.push(neighbor);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use semblance_index::{SearchParams, VectorIndex as _};

    use super::super::tests::spread;
    use super::super::{AnswerConfig, Answering, Matrix};

    #[test]
    fn as_many_classes_as_asked_for_however_deep_they_lie() {
        // 90 items of one class, and one each of three others.
        let classes = (0..93).map(|i| Some(if i < 90 { "mug".into() } else { format!("c{i}") })).collect();
        let matrix = Matrix::new(spread(93), 3, (0..93).collect(), classes).unwrap();
        let config = AnswerConfig { one_per_class: true, ..AnswerConfig::default() };
        let query = [0.6, 0.0, 0.8];
        let found = Answering::new(&matrix, &config).search(&query, &SearchParams::exact(3)).unwrap();
        assert_eq!(found.len(), 3);
        // The literal way: the whole ranking, the first of each class.
        let mut seen = std::collections::HashSet::new();
        let whole = matrix.search(&query, &SearchParams::exact(93)).unwrap();
        let literal: Vec<_> =
            whole.into_iter().filter(|n| seen.insert(if n.id < 90 { 0 } else { n.id })).take(3).collect();
        assert_eq!(found, literal);
        let all = Answering::new(&matrix, &config).search(&query, &SearchParams::exact(50)).unwrap();
        assert_eq!(all.len(), 4, "there are only four");
    }

    #[test]
    fn items_without_a_class_stand_for_themselves() {
        let matrix = Matrix::new(spread(10), 3, (0..10).collect(), vec![None; 10]).unwrap();
        let config = AnswerConfig { one_per_class: true, ..AnswerConfig::default() };
        let found =
            Answering::new(&matrix, &config).search(&[1.0, 0.0, 0.0], &SearchParams::exact(10)).unwrap();
        assert_eq!(found.len(), 10);
    }
}
