//! A report as JSON: the [`Report`]'s own fields, so that it can be read back.

use super::Report;

/// The report as indented JSON, without a line break at the end.
pub fn render(report: &Report) -> String {
    // A report holds numbers, strings and lists only: it cannot fail to serialise.
    serde_json::to_string_pretty(report).expect("a report is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::tests::example;

    #[test]
    fn reads_back() {
        let report = example();
        let text = render(&report);
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert!(text.contains("\"protocol\": \"leave-one-out\""), "{text}");
    }
}
