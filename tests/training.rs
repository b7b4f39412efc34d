//! Training, being stopped and going on; the demo.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::util::{Dir, draw_catalogue};

const TRAIN: [&str; 16] = [
    "train",
    "--data",
    "cat",
    "--arch",
    "resnet10_tiny",
    "--crop",
    "32",
    "--resize",
    "32",
    "--batch",
    "8",
    "--lr",
    "0.02",
    "--holdout",
    "0.25",
    "--quiet",
];

fn log(dir: &Dir, run: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.path(run).join("train.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn steps_done(dir: &Dir, run: &str) -> u64 {
    log(dir, run)
        .iter()
        .filter(|line| line.get("loss").is_some())
        .filter_map(|line| line["step"].as_u64())
        .max()
        .unwrap_or(0)
}

#[test]
fn a_run_leaves_models_a_log_and_a_summary() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let args = ["--out", "run", "--steps", "4", "--validate-every", "2", "--json"];
    let summary = dir.run(TRAIN.into_iter().chain(args)).exits(0).json();
    assert_eq!((&summary["steps"], &summary["stopped"]), (&4.into(), &false.into()));
    assert!((0.0..=1.0).contains(&summary["best"][1].as_f64().unwrap()), "{summary}");
    let validations = log(&dir, "run").iter().filter(|line| line.get("recall_at_1").is_some()).count();
    assert_eq!(validations, 3, "before the first step, after the second and the fourth");
    for model in ["run/best", "run/last"] {
        let build = ["index", "build", "--replace", "--name", "shop", "--data", "cat", "--model", model];
        dir.run(build).exits(0);
    }
    // Another run in the same folder would write over this one.
    let before = dir.snapshot();
    dir.run(TRAIN.into_iter().chain(args)).exits(2).complains_of(&["run", "resume"]);
    assert_eq!(dir.snapshot(), before);
}

#[test]
fn a_killed_run_goes_on_as_if_never_stopped() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let settings = ["--steps", "24", "--save-every", "3", "--validate-every", "9", "--threads", "2"];
    let settings: Vec<&str> = TRAIN.into_iter().chain(settings).collect();
    let run = |out: &'static str| settings.iter().copied().chain(["--out", out]).collect::<Vec<&str>>();
    dir.run(run("whole")).exits(0);

    let mut child = start(&dir, &run("cut"));
    wait_for(&mut child, || steps_done(&dir, "cut") >= 8);
    child.kill().unwrap();
    child.wait().unwrap();
    let cut_at = steps_done(&dir, "cut");
    dir.run(run("cut").into_iter().chain(["--resume"])).exits(0);

    for file in ["model.safetensors", "config.json"] {
        let read = |run: &str| std::fs::read(dir.path(run).join("last").join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file} differs after a kill at step {cut_at} and a resume");
    }
    let losses = |run: &str| -> Vec<Value> {
        log(&dir, run).iter().filter_map(|line| line.get("loss").cloned()).collect()
    };
    assert_eq!(losses("whole"), losses("cut"), "the log has every step once");
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_exits_with_130() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let args: Vec<&str> = TRAIN.into_iter().chain(["--steps", "100000", "--out", "run"]).collect();
    let mut child = start(&dir, &args);
    wait_for(&mut child, || steps_done(&dir, "run") >= 2);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let state = std::fs::read_to_string(dir.path("run/last/state.json")).unwrap();
    let saved = serde_json::from_str::<Value>(&state).unwrap()["step"].as_u64().unwrap();
    assert_eq!(saved, steps_done(&dir, "run"), "nothing done is lost");
}

fn start(dir: &Dir, args: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_semblance"))
        .args(args)
        .current_dir(dir.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until a run in another process has come far enough.
fn wait_for(child: &mut std::process::Child, mut ready: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before it was to be stopped");
        assert!(began.elapsed() < Duration::from_secs(120), "the run does not get anywhere");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_demo_does_all_of_it_and_refuses_to_do_it_twice() {
    let dir = Dir::new();
    let demo =
        ["demo", "--classes", "12", "--images-per-class", "4", "--size", "32", "--steps", "3", "--json"];
    let result = dir.run(demo).exits(0).json();
    for key in ["recall_at_1_before", "recall_at_1_after"] {
        assert!((0.0..=1.0).contains(&result[key].as_f64().unwrap()), "{result}");
    }
    for key in ["catalogue", "model", "index", "photo"] {
        assert!(dir.path(result[key].as_str().unwrap()).exists(), "{key}: {result}");
    }
    assert_eq!(result["hits"].as_array().unwrap().len(), 5);
    // What it tells to type next works.
    dir.run(["search", result["photo"].as_str().unwrap(), "--index", "demo"]).exits(0);
    dir.run(["eval", "--index", "demo"]).exits(0);
    let before = dir.snapshot();
    dir.run(demo).exits(2).complains_of(&["--replace"]);
    assert_eq!(dir.snapshot(), before);
    dir.run(demo.into_iter().chain(["--replace"])).exits(0);
}

#[test]
fn a_recipe_is_a_file_of_flags_and_flags_win() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let recipe = "data = \"cat\"\narch = \"resnet10_tiny\"\ncrop = 32\nresize = 32\nloss = \"supcon\"\nbatch = 8\n\
                  epochs = 2\nlr = 0.01\noptimizer = \"adamw\"\nlr_schedule = \"one-cycle\"\nbrightness = 0.2\n\
                  average = 0.9\nholdout = 0.25\n";
    dir.write("recipe.toml", recipe);
    let run = ["train", "--config", "recipe.toml", "--out", "run", "-q", "--json"];
    let summary = dir.run(run.into_iter().chain(["--steps", "3", "--lr", "0.02"])).exits(0).json();
    assert_eq!(summary["steps"], 3);
    let state = std::fs::read_to_string(dir.path("run/last/state.json")).unwrap();
    let config = &serde_json::from_str::<Value>(&state).unwrap()["config"];
    assert_eq!((&config["loss"]["name"], &config["batch"]), (&"supcon".into(), &8.into()));
    assert_eq!(config["schedule"]["lr"], 0.02);
    assert_eq!(config["optimizer"]["algorithm"], "adamw");
    let events = std::fs::read_dir(dir.path("run")).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("events.out.tfevents")
    });
    assert_eq!(events.count(), 1);
    assert!(std::fs::read_to_string(dir.path("run/curves.svg")).unwrap().contains("Recall@1"));
    // The second stage starts from the first one's model.
    let second =
        ["train", "--config", "recipe.toml", "--model", "run/last", "--out", "second", "--steps", "1"];
    dir.run(second.into_iter().chain(["-q", "--loss", "triplet"])).exits(0);
}

#[test]
fn recipes_that_cannot_be_are_refused_by_name() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let before = dir.snapshot();
    let refused = |recipe: &str, words: &[&str]| {
        dir.write("recipe.toml", recipe);
        let args = ["--config", "recipe.toml", "--out", "run"];
        dir.run(TRAIN.into_iter().chain(args)).exits(2).complains_of(words);
    };
    refused("batchsize = 8", &["recipe.toml", "batchsize"]);
    refused("steps = 8\nepochs = 2", &["recipe.toml", "steps", "epochs"]);
    refused("[optimizer]\nmomentum = 0.5", &["recipe.toml", "optimizer", "table"]);
    refused("loss = \"softmax\"\nmargin = 0.5", &["softmax", "margin"]);
    refused("loss = \"soft_max\"", &["soft_max"]);
    refused("loss = \"npairs\"\nscale = 20.0", &["npairs", "--normalize"]);
    refused("memory = 100", &["memory", "contrastive"]);
    refused("freeze_backbone = \"some\"", &["some"]);
    refused("loss = \"npairs\"\nper_class = 4", &["npairs", "per_class"]);
    refused("loss = \"supcon\"\nper_class = 8", &["classes"]);
    refused("super_classes = 3\nloss = \"supcon\"\nper_class = 2", &["super classes"]);
    refused("hue = 0.9", &["hue"]);
    dir.run(TRAIN.into_iter().chain(["--config", "none.toml", "--out", "run"]))
        .exits(2)
        .complains_of(&["none.toml"]);
    std::fs::remove_file(dir.path("recipe.toml")).unwrap();
    assert!(dir.snapshot() == before, "nothing was written");
}

#[test]
fn the_recipes_of_the_project_are_valid() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let recipes: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let recipes = recipes.iter().filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let mut count = 0;
    for recipe in recipes {
        // Cut to what a test has time for; everything else is the recipe's.
        let small = ["--batch", "8", "--per-class", "2", "--steps", "2", "--crop", "32", "--resize", "32"];
        let mut args = vec!["train", "--config", recipe.to_str().unwrap(), "--data", "cat", "-q"];
        args.extend(["--arch", "resnet10_tiny", "--train-size", "32", "--holdout", "0", "--out"]);
        let out = count.to_string();
        args.push(&out);
        dir.run(args.into_iter().chain(small)).exits(0);
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn few_classes_choose_no_model_by_a_number_that_says_nothing() {
    let dir = Dir::new();
    let draw = |classes: &str, images: &str, out: &str| {
        let size = ["--classes", classes, "--images-per-class", images, "--size", "32"];
        dir.run(["data", "sample", "--quiet", "--out", out].into_iter().chain(size)).exits(0);
    };
    draw("10", "4", "ten");
    draw("2", "4", "two");
    let train = |data: &'static str, out: &'static str| -> Vec<&str> {
        let args = TRAIN
            .into_iter()
            .filter(|arg| *arg != "--quiet")
            .map(|arg| if arg == "cat" { data } else { arg });
        args.chain(["--steps", "2", "--out", out]).collect()
    };
    // One of ten classes would find itself every time.
    let run = dir.run(train("ten", "run")).exits(0);
    assert!(run.stderr.contains("held out: 10 photographs of 10 classes"), "{}", run.stderr);
    // Two classes of four photographs judge nothing.
    let run = dir.run(train("two", "few").into_iter().chain(["--json"])).exits(0);
    assert!(run.stderr.contains("too few photographs to judge a model by"), "{}", run.stderr);
    let summary = run.json();
    assert_eq!((&summary["best"], &summary["recall_before"]), (&Value::Null, &Value::Null));
    assert!(summary["model"].as_str().unwrap().ends_with("last"), "{summary}");
    let text = dir.run(train("two", "text")).exits(0).stdout;
    assert!(text.contains("Nothing was held out") && !text.contains("Recall"), "{text}");

    // Photographs given to judge by that tell no two models apart.
    let table = |rows: &[usize]| {
        let rows = rows.iter().map(|row| format!("{row}.png,class {}\n", row / 4));
        rows.fold("path,class\n".to_owned(), |text, row| text + &row)
    };
    dir.write("one.csv", table(&[0, 1, 2]));
    dir.write("single.csv", table(&[0, 4, 8]));
    for (valid, word) in [("one.csv", "all of one class"), ("single.csv", "no photograph has another")] {
        let args = train("ten", "refused").into_iter().chain(["--valid", valid]);
        dir.run(args).exits(2).complains_of(&[word]);
    }
}

#[test]
fn the_demos_model_is_not_advised_for_photographs_and_warns_on_them() {
    let dir = Dir::new();
    let demo = ["demo", "--classes", "12", "--images-per-class", "4", "--size", "32", "--steps", "3"];
    let text = dir.run(demo).exits(0).stdout;
    let next = text.split("Next").nth(1).unwrap_or_default();
    assert!(
        next.contains("--model timm/mobilenetv2_100.ra_in1k") && !next.contains("--model runs/demo"),
        "{text}"
    );
    std::fs::create_dir(dir.path("mine")).unwrap();
    let mut copied = 0;
    for (path, content) in dir.snapshot() {
        if path.extension().is_some_and(|ending| ending == "png" || ending == "jpg") && copied < 4 {
            copied += 1;
            std::fs::write(dir.path("mine").join(path.file_name().unwrap()), content).unwrap();
        }
    }
    assert_eq!(copied, 4);
    let embed = |data: &str, out: &str| {
        let args = ["embed", "-q", "--model", "runs/demo/training/last", "--data", data, "--out", out];
        dir.run(args).exits(0).stderr
    };
    assert!(embed("mine", "a.jsonl").contains("drawn pictures alone"));
    assert!(!embed("runs/demo/catalogue", "b.jsonl").contains("drawn pictures"));
}

#[test]
fn strict_training_stops_at_a_photograph_that_cannot_be_read() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    // One photograph of each class, so that some are learned from.
    let below = |folder: std::path::PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    for class in below(dir.path("cat")).into_iter().flat_map(below).filter(|path| path.is_dir()) {
        let photo = below(class).into_iter().min().expect("a photograph");
        std::fs::write(photo, "no picture").expect("it is written");
    }
    let args = ["--json", "--steps", "8"];
    let run = |more: &[&str]| dir.run(TRAIN.iter().chain(&args).chain(more));
    run(&["--out", "strict", "--strict"]).exits(2).complains_of(&["none of the image formats"]);
    let summary = run(&["--out", "lenient"]).exits(0).json();
    assert!(summary["skipped"].as_u64().is_some_and(|skipped| skipped > 0), "{summary}");
}
