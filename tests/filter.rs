//! Searching by item, by condition and by score, and being told how.

use serde_json::{Value, json};

use crate::durability::catalogue;
use crate::util::{Dir, MODEL, draw_catalogue};

/// An index of forty vectors, one after the other on an arc; item `pI.jpg` has `n` = I.
fn arc() -> Dir {
    let dir = Dir::new();
    catalogue(&dir);
    dir.run(["index", "import", "in/vectors.npy", "--index", "shop", "--quiet"]).exits(0);
    dir
}

fn search(dir: &Dir, args: &[&str]) -> Value {
    dir.run(["search", "--index", "shop", "--json"].iter().chain(args)).exits(0).json()
}

fn keys(answer: &Value) -> Vec<&str> {
    let hits = answer["results"][0]["hits"].as_array().expect("hits");
    hits.iter().map(|hit| hit["key"].as_str().expect("a key")).collect()
}

#[test]
fn a_stored_item_finds_its_neighbours_that_meet_the_conditions() {
    let dir = arc();
    assert_eq!(keys(&search(&dir, &["--item", "p0.jpg", "-k", "3"])), ["p1.jpg", "p2.jpg", "p3.jpg"]);
    let conditions = ["--where", "n >= 10", "--where", "class != c2"];
    let found = search(&dir, &[&["--item", "p0.jpg", "-k", "3", "--explain"], &conditions[..]].concat());
    assert_eq!(keys(&found), ["p11.jpg", "p12.jpg", "p13.jpg"]);
    let explain = &found["results"][0]["searches"][0];
    assert_eq!((&explain["matching"], &explain["strategy"]), (&json!(22), &json!("exact_matches")));
    let any =
        r#"{"or": [{"eq": {"field": "n", "value": 30}}, {"eq": {"field": "key", "value": "p31.jpg"}}]}"#;
    assert_eq!(keys(&search(&dir, &["--item", "p0.jpg", "--where", any])), ["p30.jpg", "p31.jpg"]);
    // cos(4/40) = 0.995: items 1 to 4 are nearer than that.
    let near = search(&dir, &["--item", "p0.jpg", "-k", "40", "--min-score", "0.995"]);
    assert_eq!(keys(&near), ["p1.jpg", "p2.jpg", "p3.jpg", "p4.jpg"]);
    let text = dir
        .run(["search", "--index", "shop", "--item", "p9.jpg", "--where", "n in 8,9", "--explain"])
        .exits(0);
    assert!(text.stdout.contains("p8.jpg") && text.stdout.contains("2 of 40 items match"), "{}", text.stdout);
}

#[test]
fn every_search_for_a_better_answer_is_told() {
    let dir = arc();
    let one_each = ["--item", "p0.jpg", "-k", "3", "--one-per-class", "--expand", "2", "--explain"];
    let found = search(&dir, &one_each);
    let classes: std::collections::BTreeSet<_> = found["results"][0]["hits"]
        .as_array()
        .expect("hits")
        .iter()
        .map(|hit| hit["class"].as_str().expect("a class"))
        .collect();
    assert_eq!(classes.len(), 3);
    let searches = found["results"][0]["searches"].as_array().expect("searches");
    assert!(searches.len() >= 2, "one to expand, one to answer: {searches:?}");
    let none = search(&dir, &["--item", "p0.jpg", "--threshold", "1"]);
    assert_eq!((&none["results"][0]["no_match"], &none["results"][0]["hits"]), (&json!(true), &json!([])));
    dir.run(["search", "--index", "shop", "--item", "p0.jpg", "--views", "flip"])
        .exits(2)
        .complains_of(&["--views"]);
}

#[test]
fn conditions_that_cannot_be_are_refused() {
    let dir = arc();
    dir.run(["search", "--index", "shop", "--item", "none.jpg"]).exits(2).complains_of(&["none.jpg"]);
    dir.run(["search", "--index", "shop", "--item", "p0.jpg", "--where", "n < true"])
        .exits(2)
        .complains_of(&["n < true", "all numbers or all strings"]);
    dir.run(["search", "--index", "shop", "--item", "p0.jpg", "--where", "n =< 20"])
        .exits(2)
        .complains_of(&["n =< 20", "<="]);
    dir.run(["search", "--index", "shop", "--item", "p0.jpg", "a.jpg"]).exits(2).complains_of(&["--item"]);
    dir.run(["search", "--index", "shop"]).exits(2).complains_of(&["<PHOTO>"]);
}

#[test]
fn a_field_that_no_item_has_is_told() {
    let dir = arc();
    let misspelt = ["search", "--index", "shop", "--item", "p0.jpg", "--where", "clas = c1"];
    let found = dir.run(misspelt.into_iter().chain(["--json"])).exits(0).complains_of(&["clas", "\"class\""]);
    let found = found.json();
    assert_eq!(keys(&found), [""; 0]);
    assert!(found["warnings"][0].as_str().is_some_and(|warning| warning.contains("clas")), "{found}");
    let wrong_kind = ["search", "--index", "shop", "--item", "p0.jpg", "--where", "n = many"];
    dir.run(wrong_kind).exits(0).complains_of(&["\"n\"", "text", "numbers"]);
    assert_eq!(search(&dir, &["--item", "p0.jpg", "--where", "n < 3"])["warnings"], json!([]));
}

#[test]
fn metadata_of_a_catalogue_is_kept_with_its_pictures() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let table = std::fs::read_to_string(dir.path("cat/products.csv")).expect("the catalogue's table");
    let paths: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    let prices = paths.iter().enumerate().map(|(i, path)| format!("{path},{}.5\n", i)).collect::<String>();
    dir.write("prices.csv", format!("path,price\n{prices}"));
    let build = ["index", "build", "--data", "cat", "--name", "shop", "--metadata", "prices.csv", "--quiet"];
    dir.run(build.into_iter().chain(MODEL)).exits(0);
    let photo = format!("cat/{}", paths[7]);
    let found = search(&dir, &[&photo, "-k", "48", "--where", "price < 3"]);
    let mut found = keys(&found);
    found.sort_unstable();
    let mut cheap = paths[..3].to_vec();
    cheap.sort_unstable();
    assert_eq!(found, cheap);
    dir.write("bad.jsonl", "{\"price\": 1}\n");
    let bad = ["index", "build", "--data", "cat", "--name", "other", "--metadata", "bad.jsonl"];
    dir.run(bad.into_iter().chain(MODEL)).exits(2).complains_of(&["bad.jsonl, line 1"]);
}
