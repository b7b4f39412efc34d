//! Real photographs, where the data lies beside the repository: index → search → eval on a slice of them.

use std::fmt::Write as _;
use std::path::Path;

use crate::util::{Dir, shared};

/// The first `per_class` photographs of every tenth class of a list, as a list of the same form.
fn slice(grocery: &Path, list: &str, per_class: usize) -> String {
    let text = std::fs::read_to_string(grocery.join(list)).unwrap();
    let mut taken = std::collections::HashMap::<&str, usize>::new();
    let mut out = String::new();
    for line in text.lines() {
        let class = line.split(", ").nth(1).unwrap();
        let count = taken.entry(class).or_default();
        if class.parse::<usize>().unwrap() % 10 == 0 && *count < per_class {
            *count += 1;
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

#[test]
fn photographs_of_the_same_product_are_found() {
    let (Some(grocery), Some(weights)) = (shared("grocery"), shared("weights/mobilenet_v2.safetensors"))
    else {
        eprintln!("skipped: the photographs are not beside the repository");
        return;
    };
    let dir = Dir::new();
    dir.write("train.txt", slice(&grocery, "train.txt", 6));
    dir.write("val.txt", slice(&grocery, "val.txt", 2));
    let (root, weights) = (grocery.to_str().unwrap(), weights.to_str().unwrap());
    let layout = ["--format", "table", "--header", "no", "--root", root];
    let build = ["index", "build", "--data", "train.txt", "--name", "grocery", "--model", weights, "--json"];
    let built = dir.run(build.into_iter().chain(layout)).exits(0).json();
    assert_eq!(built["summary"]["embedded"], 54, "9 classes of 6 photographs");
    assert_eq!(built["summary"]["failures"].as_array().unwrap().len(), 0);

    let photo = std::fs::read_to_string(dir.path("val.txt")).unwrap();
    let photo = grocery.join(photo.split(',').next().unwrap());
    let found = dir
        .run(["search", photo.to_str().unwrap(), "--index", "grocery", "-k", "5", "--json"])
        .exits(0)
        .json();
    assert_eq!(found["results"][0]["hits"].as_array().unwrap().len(), 5);

    let eval = ["eval", "--index", "grocery", "--queries", "val.txt", "-k", "1,5", "--json"];
    let report = dir.run(eval.into_iter().chain(layout)).exits(0).json();
    assert_eq!(report["protocol"], "query-against-gallery");
    let exact = &report["searches"][0];
    let recall = |place: usize| exact["recall_at_k"][place]["value"].as_f64().unwrap();
    // Chance is 1/9; ImageNet's features know fruit from cartons.
    assert!(recall(0) > 0.5 && recall(1) >= recall(0), "{report}");
    assert_eq!(exact["duplicates"], 0, "no validation photograph is in the train list");
}
