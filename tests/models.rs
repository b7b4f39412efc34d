//! Models by themselves: measured without an index, written for other programs.

mod hub;

use crate::util::{Dir, MODEL, draw_catalogue, shop};

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
fn integers_inside_a_model_find_what_floating_point_indexed() {
    let dir = shop();
    let photo = a_picture(&dir);
    let search = |args: &[&str]| {
        let found =
            dir.run(["search", "--index", "shop", "--json", &photo].iter().chain(args)).exits(0).json();
        let first = found["results"][0]["hits"][0].clone();
        (first["key"].clone(), first["score"].as_f64().expect("a score"))
    };
    let ((key, plain), (found, integer)) = (search(&[]), search(&["--precision", "int16"]));
    assert_eq!(found, key);
    assert!((plain - integer).abs() < 1e-3, "{plain} and {integer}");
    dir.run(["search", "--index", "shop", &photo, "--precision", "int4"])
        .exits(2)
        .complains_of(&["int4", "int16"]);
    let train = ["train", "--data", "cat", "--precision", "int16", "--steps", "1", "--out", "run"];
    dir.run(train.into_iter().chain(MODEL)).exits(2).complains_of(&["int16"]);
}

#[test]
fn transformers_and_convnext_index_search_and_train() {
    let dir = shop();
    let photo = a_picture(&dir);
    for (model, side) in [("random:vit_tiny_patch16_224", "48"), ("random:convnext_tiny", "64")] {
        let build =
            ["index", "build", "-q", "--data", "cat", "--name", "other", "--replace", "--model", model];
        dir.run(build.into_iter().chain(["--crop", side])).exits(0);
        let found = dir.run(["search", "--index", "other", "--json", "-k", "1", &photo]).exits(0).json();
        let hit = &found["results"][0]["hits"][0];
        assert!(photo.ends_with(hit["key"].as_str().expect("a key")), "{model}: {hit}");
    }
    let wrong = ["index", "build", "--data", "cat", "--name", "x", "--model", "random:vit_tiny_patch16_224"];
    dir.run(wrong.into_iter().chain(["--crop", "50"])).exits(2).complains_of(&["50", "16"]);

    let vit =
        ["train", "-q", "--data", "cat", "--arch", "vit_tiny_patch16_224", "--crop", "32", "--steps", "2"];
    let vit = [&vit[..], &["--batch", "4", "--train-size", "32"]].concat();
    for (at, head) in [
        &["--head", "batch_norm", "--pool", "class_and_mean"][..],
        &["--head", "mlp", "--hidden", "24", "--embedding-dim", "12", "--pool", "gem"],
        &["--head", "layer_norm"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("run{at}");
        dir.run([&vit[..], head, &["--out", &out]].concat()).exits(0);
        let eval = ["eval", "-q", "--json", "--data", "cat", "--model", &format!("{out}/last")];
        let measured = dir.run(eval).exits(0).json();
        assert!(!measured["searches"][0]["map_at_r"].is_null(), "{measured}");
    }
    let contradiction =
        ["train", "--data", "cat", "--arch", "resnet10_tiny", "--pool", "class_token", "--out", "x"];
    dir.run(contradiction).exits(2).complains_of(&["class token"]);
}

/// The path of one of the catalogue's pictures.
fn a_picture(dir: &Dir) -> String {
    let table = std::fs::read_to_string(dir.path("cat/products.csv")).expect("the catalogue's table");
    let first = table.lines().nth(1).and_then(|line| line.split(',').next()).expect("a path");
    format!("cat/{first}")
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

    // Of a network with another head, timm gets the backbone, or ONNX Runtime all of it.
    let vit =
        ["train", "-q", "--data", "cat", "--arch", "vit_tiny_patch16_224", "--crop", "32", "--steps", "1"];
    let mlp =
        ["--batch", "4", "--train-size", "32", "--head", "mlp", "--hidden", "9", "--embedding-dim", "5"];
    draw_catalogue(&dir, "cat");
    dir.run([&vit[..], &mlp, &["--pool", "class_and_mean", "--out", "run"]].concat()).exits(0);
    let run = ["--model", "run/last"];
    export(&[&run[..], &["--out", "vit"]].concat()).exits(2).complains_of(&[
        "class_and_mean",
        "--without-head",
        "--format onnx",
    ]);
    let bare = export(&[&run[..], &["--out", "vit", "--without-head"]].concat()).exits(0).json();
    assert_eq!((&bare["dim"], &bare["without_head"]), (&192.into(), &true.into()));
    let whole = export(&[&run[..], &["--out", "vit-onnx", "--format", "onnx"]].concat()).exits(0).json();
    assert_eq!((&whole["dim"], &whole["size"]), (&5.into(), &32.into()));
    assert!(std::fs::metadata(dir.path("vit-onnx/model.onnx")).unwrap().len() > 20_000_000);

    let before = dir.snapshot();
    export(&[&small[..], &["--out", "timm"]].concat()).exits(2).complains_of(&["timm"]);
    let both = [&run[..], &["--out", "both", "--format", "onnx", "--without-head"]].concat();
    export(&both).exits(2).complains_of(&["--without-head"]);
    let tiny = ["--model", "random:resnet10_tiny", "--out", "tiny"];
    export(&tiny).exits(2).complains_of(&["resnet10_tiny", "onnx"]);
    export(&["--out", "none"]).exits(2).complains_of(&["--model"]);
    assert!(dir.snapshot() == before, "nothing was written");
}
