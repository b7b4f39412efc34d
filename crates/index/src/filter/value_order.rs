//! One total order over metadata values. Equality, ranges, lists of values and dictionaries all compare by it.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// Total order: null, booleans, numbers, strings, lists, objects; within a kind by value. Numbers are compared exactly,
/// whatever their notation: `1` equals `1.0`, and 2^53 + 1 differs from the float 2^53.
pub(crate) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let unequal = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
            unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let entries = a.iter().zip(b);
            let unequal = entries
                .map(|((x, a), (y, b))| x.cmp(y).then_with(|| compare(a, b)))
                .find(|order| order.is_ne());
            unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => kind(a).cmp(&kind(b)),
    }
}

/// Whether two values are the same in this order.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    compare(a, b).is_eq()
}

/// Order of two numbers or two strings; `None` for anything else, which has no place in a range.
pub(crate) fn compare_in_range(a: &Value, b: &Value) -> Option<Ordering> {
    let comparable = (a.is_number() && b.is_number()) || (a.is_string() && b.is_string());
    comparable.then(|| compare(a, b))
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// A number without loss: integers fit `i128`, everything else is a finite float.
enum Exact {
    Integer(i128),
    Float(f64),
}

fn exact(number: &Number) -> Exact {
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    // JSON has neither NaN nor infinity, so the fallback is never taken.
    integer.map_or_else(|| Exact::Float(number.as_f64().unwrap_or(0.0)), Exact::Integer)
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (exact(a), exact(b)) {
        (Exact::Integer(a), Exact::Integer(b)) => a.cmp(&b),
        (Exact::Integer(a), Exact::Float(b)) => compare_mixed(a, b),
        (Exact::Float(a), Exact::Integer(b)) => compare_mixed(b, a).reverse(),
        // Adding zero makes -0.0 and 0.0 the same.
        (Exact::Float(a), Exact::Float(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
    }
}

/// Compares an integer of at most 64 bits and a sign with a finite float.
fn compare_mixed(integer: i128, float: f64) -> Ordering {
    // The conversion saturates far beyond any 64-bit integer, and is exact below that.
    let whole = float.trunc();
    let by_fraction = || whole.partial_cmp(&float).unwrap_or(Ordering::Equal);
    integer.cmp(&(whole as i128)).then_with(by_fraction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The exact value of a number as whole and 2^-1074ths, so that any two can be compared as integers.
    fn reference(value: &Value) -> (i128, i128) {
        if let Some(integer) = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from)) {
            return (integer, 0);
        }
        let float = value.as_f64().unwrap();
        let whole = float.floor();
        // 2^-60 is fine enough for the floats drawn here.
        (whole as i128, ((float - whole) * 2f64.powi(60)) as i128)
    }

    /// Numbers of every notation, close to the places where floats stop being whole, lose digits, or end.
    fn number() -> impl Strategy<Value = Value> {
        let near = prop_oneof![
            Just(0i128),
            Just(1 << 53),
            Just(1 << 60),
            Just(1 << 63),
            Just(-(1i128 << 53)),
            Just(-(1i128 << 60)),
            Just(-(1i128 << 63)),
            Just(1 << 64)
        ];
        (near, -4i128..5, 0usize..4).prop_map(|(near, by, notation)| {
            let value = near + by;
            match (notation, u64::try_from(value), i64::try_from(value)) {
                (0, Ok(unsigned), _) => json!(unsigned),
                (1, _, Ok(signed)) => json!(signed),
                (2, ..) if near.abs() < 1 << 53 => json!(value as f64 + 0.5),
                _ => json!(value as f64),
            }
        })
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            4 => number(),
            1 => Just(Value::Null),
            1 => any::<bool>().prop_map(Value::from),
            1 => "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn numbers_are_compared_exactly(a in number(), b in number()) {
            prop_assert_eq!(compare(&a, &b), reference(&a).cmp(&reference(&b)), "{} {}", a, b);
        }

        #[test]
        fn the_order_is_total(a in value(), b in value(), c in value()) {
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le(), "{} ≤ {} ≤ {}", a, b, c);
            }
            if compare(&a, &b).is_eq() {
                prop_assert_eq!(compare(&a, &c), compare(&b, &c));
            }
        }

        #[test]
        fn sorting_never_panics(mut values in proptest::collection::vec(number(), 0..200)) {
            values.sort_by(compare);
            prop_assert!(values.is_sorted_by(|a, b| compare(a, b).is_le()));
        }
    }

    #[test]
    fn notation_does_not_matter_and_digits_do() {
        let same = |a: Value, b: Value| assert!(equal(&a, &b) && equal(&b, &a), "{a} {b}");
        same(json!(1), json!(1.0));
        same(json!(0), json!(-0.0));
        same(json!(0.0), json!(-0.0));
        same(json!([1, {"a": 2.0}]), json!([1.0, {"a": 2}]));
        let less = |a: Value, b: Value| assert_eq!(compare(&a, &b), Ordering::Less, "{a} {b}");
        less(json!(9_007_199_254_740_992.0), json!(9_007_199_254_740_993u64));
        less(json!(u64::MAX), json!(18_446_744_073_709_551_616.0));
        less(json!(i64::MAX), json!(9_223_372_036_854_775_808.0));
        less(json!(-1e300), json!(i64::MIN));
        less(json!(-0.5), json!(0));
        less(json!(0), json!(5e-324));
        assert_eq!(compare_in_range(&json!(1), &json!("1")), None);
        assert_eq!(compare_in_range(&json!(true), &json!(false)), None);
    }
}
