//! From a catalogue to an index to hits and recall; building that was cut short.

use std::sync::OnceLock;

use semblance_embed::dataset::{Dataset, DatasetConfig};
use semblance_embed::transform::EvalTransform;
use semblance_embed::{Embedder, ModelSource};
use semblance_index::{Index, IndexWriter};
use semblance_query::catalog;
use serde_json::Value;

use crate::util::{Dir, MODEL, draw_catalogue, shop};

/// One shop for the tests that only read.
fn read_only() -> &'static Dir {
    static SHOP: OnceLock<Dir> = OnceLock::new();
    SHOP.get_or_init(shop)
}

fn near(value: &Value, wanted: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - wanted).abs() < 1e-5)
}

#[test]
fn a_picture_of_the_catalogue_finds_itself_first() {
    let dir = read_only();
    let photo = "cat/products.csv";
    let table = std::fs::read_to_string(dir.path(photo)).unwrap();
    let row: Vec<&str> = table.lines().nth(6).unwrap().split(',').collect();
    let found = dir
        .run(["search", &format!("cat/{}", row[0]), "--index", "shop", "-k", "3", "--json"])
        .exits(0)
        .json();
    let hits = found["results"][0]["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 3);
    assert_eq!(hits[0]["key"], row[0]);
    assert_eq!(hits[0]["class"], row[1]);
    assert_eq!(hits[0]["super_class"], row[2]);
    assert!(near(&hits[0]["score"], 1.0), "{found}");
    let scores: Vec<f64> = hits.iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert_eq!(found["items"], 48);
}

#[test]
fn exact_search_and_the_graph_agree_on_a_small_catalogue() {
    let dir = read_only();
    let photo = first_photo(dir);
    let ids = |how: &[&str]| -> Vec<Value> {
        let args = ["search", photo.as_str(), "--index", "shop", "-k", "10", "--json"];
        let found = dir.run(args.iter().chain(how)).exits(0).json();
        found["results"][0]["hits"].as_array().unwrap().iter().map(|hit| hit["id"].clone()).collect()
    };
    assert_eq!(ids(&["--exact"]), ids(&["--ef-search", "48"]));
}

fn first_photo(dir: &Dir) -> String {
    let table = std::fs::read_to_string(dir.path("cat/products.csv")).unwrap();
    format!("cat/{}", table.lines().nth(1).unwrap().split(',').next().unwrap())
}

#[test]
fn k_beyond_the_index_returns_all_and_says_so() {
    let dir = read_only();
    let output = dir.run(["search", &first_photo(dir), "--index", "shop", "-k", "1000", "--json"]).exits(0);
    assert_eq!(output.json()["results"][0]["hits"].as_array().unwrap().len(), 48);
    assert!(output.stderr.contains("only 48 items"), "{}", output.stderr);
}

#[test]
fn leave_one_out_reports_every_measure_and_what_it_was_measured_on() {
    let report = read_only().run(["eval", "--index", "shop", "-k", "1,10,1000", "--json"]).exits(0).json();
    assert_eq!(report["protocol"], "leave-one-out");
    assert_eq!(report["gallery"], "shop");
    assert_eq!((&report["gallery_items"], &report["gallery_classes"]), (&48.into(), &12.into()));
    let counts = &report["query_counts"];
    assert_eq!(
        (&counts["total"], &counts["scored"], &counts["without_match"]),
        (&48.into(), &48.into(), &0.into())
    );
    let searches = report["searches"].as_array().unwrap();
    assert_eq!(searches.len(), 2, "exact and through the graph");
    for entry in searches {
        let recall: Vec<f64> =
            entry["recall_at_k"].as_array().unwrap().iter().map(|at| at["value"].as_f64().unwrap()).collect();
        assert!(recall.is_sorted() && recall[0] > 0.0 && recall[2] == 1.0, "{report}");
        assert!(entry["map_at_r"].as_f64().unwrap() <= entry["r_precision"].as_f64().unwrap(), "{report}");
        assert_eq!(entry["recall_at_k"][2]["used"], 47, "K cut to all others");
    }
    assert!(searches[1]["ann_recall"][1]["value"].as_f64().unwrap() > 0.95, "{report}");
    let model = report["model"].as_str().unwrap();
    assert_eq!(model.len(), 64, "the whole fingerprint");
}

#[test]
fn queries_against_the_gallery_are_embedded_with_the_index_s_model() {
    let args = ["eval", "--index", "shop", "--queries", "cat", "-k", "1", "--exact", "--json"];
    let report = read_only().run(args).exits(0).json();
    assert_eq!(report["protocol"], "query-against-gallery");
    assert_eq!(report["searches"].as_array().unwrap().len(), 1, "--exact leaves the graph out");
    // The same pictures: each finds itself, and the report says that they are the same.
    assert!(near(&report["searches"][0]["recall_at_k"][0]["value"], 1.0), "{report}");
    assert_eq!(report["searches"][0]["duplicates"], 48);
}

#[test]
fn an_unlabelled_catalogue_can_be_searched_and_says_that_nothing_can_be_scored() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let build = ["index", "build", "--data", "cat", "--format", "flat", "--name", "plain"];
    dir.run(build.into_iter().chain(MODEL)).exits(0);
    let report = dir.run(["eval", "--index", "plain", "--json"]).exits(0).json();
    assert_eq!(report["query_counts"]["scored"], 0);
    assert_eq!(report["query_counts"]["unlabelled"], 48);
    assert_eq!(report["searches"][0]["map_at_r"], Value::Null);
    assert!(
        report["searches"][1]["ann_recall"][0]["value"].as_f64().unwrap() > 0.9,
        "needs no labels: {report}"
    );
    dir.run(["search", &first_photo(&dir), "--index", "plain"]).exits(0);
}

#[test]
fn vectors_are_written_with_their_paths() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let embed = ["embed", "--data", "cat", "--out", "vectors", "--json"];
    let summary = dir.run(embed.into_iter().chain(MODEL)).exits(0).json();
    assert_eq!((&summary["embedded"], &summary["skipped"]), (&48.into(), &0.into()));
    let npy = std::fs::read(dir.path("vectors/vectors.npy")).unwrap();
    assert!(npy.starts_with(b"\x93NUMPY\x01\x00"));
    let dim = summary["dim"].as_u64().unwrap();
    assert_eq!(npy.len() as u64, 128 + 48 * dim * 4);
    let items = std::fs::read_to_string(dir.path("vectors/items.jsonl")).unwrap();
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let row = |line| {
        let item: Value = serde_json::from_str(line).unwrap();
        ["key", "class", "super_class"].map(|field| text(&item, field)).join(",")
    };
    let table = std::fs::read_to_string(dir.path("cat/products.csv")).unwrap();
    assert!(items.lines().map(row).eq(table.lines().skip(1).map(str::to_owned)));
    // What was embedded can be imported from each file, and searched by photograph with the model it names.
    dir.run(["embed", "--data", "cat", "--out", "lines/vectors.jsonl"].into_iter().chain(MODEL)).exits(0);
    for (name, file) in [
        ("npy", "vectors/vectors.npy"),
        ("safe", "vectors/vectors.safetensors"),
        ("lines", "lines/vectors.jsonl"),
    ] {
        let fingerprint = summary["model"].as_str().unwrap();
        let import = ["index", "import", file, "--index", name, "--fingerprint", fingerprint, "--json"];
        let imported = dir.run(import).exits(0).json();
        assert_eq!((&imported["imported"], &imported["replaced"]), (&48.into(), &0.into()));
        let all = |name: &str| {
            let index = Index::open(dir.path(format!("index-data/{name}"))).unwrap();
            let mut all = vec![];
            index
                .for_each(|item, vector| {
                    all.push((item, vector.to_vec()));
                    Ok(())
                })
                .unwrap();
            all
        };
        assert_eq!(all(name), all("npy"));
    }
    let found = dir.run(["search", &first_photo(&dir), "--index", "npy", "--json"]).exits(0);
    assert!(found.stdout.contains("score"), "{}", found.stdout);
    std::fs::remove_dir_all(dir.path("index-data")).unwrap();
    // A second run would write over them: refused, and the files stay.
    let before = dir.snapshot();
    dir.run(embed.into_iter().chain(MODEL)).exits(2).complains_of(&["vectors", "not empty"]);
    assert_eq!(dir.snapshot(), before);
}

#[test]
fn building_goes_on_where_it_was_cut_short() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    // What a killed build leaves: some batches stored, no manifest.
    let dataset = Dataset::open(&DatasetConfig::new(dir.path("cat"))).unwrap();
    let source = ModelSource {
        transform: Some(EvalTransform { resize: 54, crop: 48, ..EvalTransform::default() }),
        ..ModelSource::new("random:resnet10_tiny")
    };
    let embedder = Embedder::open(&source).unwrap();
    let config = catalog::index_config(&dataset, &embedder, &source);
    let writer = IndexWriter::create(dir.path("index-data/shop"), &config).unwrap();
    let stored = dataset.select(&[3, 4, 5, 6, 7]);
    let embedded =
        semblance_query::Embedded::new(&embedder, &stored, &Default::default(), &mut |_| {}).unwrap();
    let items: Vec<_> =
        stored.samples.iter().map(|sample| semblance_index::NewItem::new(sample.key())).collect();
    writer.upsert(&items, &embedded.vectors).unwrap();
    drop(writer);

    dir.run(["eval", "--index", "shop"]).exits(2).complains_of(&["unfinished", "--resume"]);
    let build = ["index", "build", "--data", "cat", "--name", "shop", "--json"];
    let other_crop = ["--model", "random:resnet10_tiny", "--crop", "32", "--resume"];
    dir.run(build.into_iter().chain(other_crop)).exits(2).complains_of(&["model"]);
    dir.run(build.into_iter().chain(MODEL)).exits(2).complains_of(&["already holds", "unfinished"]);
    let result = dir.run(build.into_iter().chain(MODEL).chain(["--resume"])).exits(0).json();
    assert_eq!(
        (&result["summary"]["already_stored"], &result["summary"]["embedded"]),
        (&5.into(), &43.into())
    );
    assert_eq!(Index::open(dir.path("index-data/shop")).unwrap().len(), 48);
}

#[test]
fn a_lost_graph_is_made_anew_from_the_stored_vectors() {
    let dir = shop();
    let before = dir.run(["eval", "--index", "shop", "--json"]).exits(0).json();
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(dir.path("index-data/shop/manifest.json")).unwrap()).unwrap();
    let segments = manifest["segments"].as_array().unwrap();
    for file in segments.iter().flat_map(|segment| segment["files"].as_array().unwrap()) {
        std::fs::remove_file(dir.path("index-data/shop").join(file["name"].as_str().unwrap())).unwrap();
    }
    dir.run(["eval", "--index", "shop"]).exits(2).complains_of(&["index-data/shop", "compact"]);
    dir.run(["index", "rebuild", "--index", "shop"]).exits(0);
    let after = dir.run(["eval", "--index", "shop", "--json"]).exits(0).json();
    assert_eq!(before["searches"][0]["map_at_r"], after["searches"][0]["map_at_r"]);
}

#[test]
fn figures_of_a_single_class_are_said_to_mean_nothing() {
    let dir = shop();
    let keys = dir.run(["index", "export", "--index", "shop", "--out", "out"]).exits(0);
    drop(keys);
    let items = std::fs::read_to_string(dir.path("out/items.jsonl")).unwrap();
    let one = items.lines().map(|line| {
        let mut item: Value = serde_json::from_str(line).unwrap();
        item["class"] = "same".into();
        format!("{item}\n")
    });
    dir.write("out/items.jsonl", one.collect::<String>());
    dir.run(["index", "import", "out/vectors.npy", "--index", "one"]).exits(0);
    dir.run(["eval", "--index", "one"]).exits(0).complains_of(&["all items are of one class"]);
}

#[test]
fn info_describes_what_made_the_index() {
    let dir = read_only();
    let info = dir.run(["index", "info", "--index", "shop", "--json"]).exits(0).json();
    assert_eq!((&info["items"], &info["classes"]), (&48.into(), &12.into()));
    let attributes = &info["manifest"]["config"]["attributes"];
    assert_eq!(attributes["model"], "random:resnet10_tiny");
    assert_eq!(attributes["catalogue_root"], dir.path("cat").canonicalize().unwrap().display().to_string());
    let text = dir.run(["index", "info", "--index", "./index-data/shop"]).exits(0).stdout;
    assert!(text.contains("48 items, 48 with a class, 12 classes"), "{text}");
}
