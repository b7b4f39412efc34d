//! Models by themselves: measured without an index, written for other programs.

use crate::util::{Dir, MODEL, draw_catalogue};

#[test]
fn a_model_is_measured_as_its_index_would_be() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    dir.run(["index", "build", "-q", "--data", "cat", "--name", "shop"].into_iter().chain(MODEL)).exits(0);
    let eval = |args: &[&str]| dir.run(["eval", "-q", "--json"].iter().chain(args)).exits(0).json();
    let of_model = |args: &[&str]| eval(&[&["--data", "cat"], &MODEL[..], args].concat());
    let by_index = eval(&["--index", "shop", "--exact"]);
    let by_model = of_model(&[]);
    for key in ["recall_at_k", "map_at_r", "r_precision", "ties"] {
        assert_eq!(by_model["searches"][0][key], by_index["searches"][0][key], "{key}");
    }
    assert_eq!((&by_model["model"], &by_model["protocol"]), (&by_index["model"], &by_index["protocol"]));
    assert_eq!(by_model["searches"].as_array().unwrap().len(), 1, "exact search only");

    // Queries of their own, options of answering, and the report with all it tries.
    let options = ["--queries", "cat", "--rerank", "--one-per-class"];
    let wanted = eval(&[&["--index", "shop", "--exact"], &options[..]].concat());
    let found = of_model(&options);
    assert_eq!(found["searches"][0]["recall_at_k"], wanted["searches"][0]["recall_at_k"]);
    of_model(&["--queries", "cat", "--report", "--try", "flip,augment,expand"]);
    let page = std::fs::read_to_string(dir.path("runs/reports/cat/report.html")).unwrap();
    assert!(page.contains("without an index") && page.contains("data:image/jpeg"));
    let indexes: Vec<_> = std::fs::read_dir(dir.path("index-data")).unwrap().collect();
    assert_eq!(indexes.len(), 1, "no index was made");

    let refused = |args: &[&str], words: &[&str]| {
        dir.run(["eval"].iter().chain(args)).exits(2).complains_of(words);
    };
    refused(&["--data", "cat"], &["--model"]);
    refused(&["--data", "cat", "--model", "none/at/all"], &["none/at/all"]);
    refused(&["--data", "cat", "--index", "shop", "--model", "random:resnet18"], &["--index", "--data"]);
    refused(&[&["--data", "cat", "--ef-search", "9"], &MODEL[..]].concat(), &["--ef-search"]);
    refused(&[&["--data", "cat", "--views", "flip"], &MODEL[..]].concat(), &["--queries"]);
}

#[test]
fn a_model_is_written_for_other_programs() {
    let dir = Dir::new();
    let export = |args: &[&str]| dir.run(["export", "--json"].iter().chain(args));
    let small = ["--model", "random:resnet18", "--crop", "64"];
    let summary = export(&[&small[..], &["--out", "timm"]].concat()).exits(0).json();
    assert_eq!((&summary["dim"], &summary["size"]), (&512.into(), &64.into()));
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path("timm/config.json")).unwrap()).unwrap();
    assert_eq!((&config["architecture"], &config["num_classes"]), (&"resnet18".into(), &0.into()));
    assert_eq!(config["pretrained_cfg"]["input_size"], serde_json::json!([3, 64, 64]));
    // What was written is a model that can be opened again, and is the same one.
    let weights = ["--model", "timm/model.safetensors", "--arch", "resnet18", "--crop", "64"];
    let again = export(&[&weights[..], &["--output", "onnx", "--format", "onnx"]].concat()).exits(0).json();
    assert_eq!(again["fingerprint"], summary["fingerprint"]);
    assert!(std::fs::metadata(dir.path("onnx/model.onnx")).unwrap().len() > 40_000_000);

    let before = dir.snapshot();
    export(&[&small[..], &["--out", "timm"]].concat()).exits(2).complains_of(&["timm"]);
    let tiny = ["--model", "random:resnet10_tiny", "--out", "tiny"];
    export(&tiny).exits(2).complains_of(&["resnet10_tiny", "onnx"]);
    export(&["--out", "none"]).exits(2).complains_of(&["--model"]);
    assert!(dir.snapshot() == before, "nothing was written");
}
