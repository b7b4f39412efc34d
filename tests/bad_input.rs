//! Input that is wrong: an error that names the culprit, the documented exit code, nothing overwritten.

use image::{ImageFormat, RgbImage};

use crate::util::{Dir, MODEL, Output, draw_catalogue, shop};

/// Runs a command that must fail without changing anything.
#[track_caller]
fn refuses(dir: &Dir, args: &[&str], words: &[&str]) -> Output {
    let before = dir.snapshot();
    let output = dir.run(args).exits(2).complains_of(words);
    assert_eq!(output.stdout, "", "nothing but the error");
    assert!(dir.snapshot() == before, "{args:?} changed something");
    output
}

fn build<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["index", "build", "--name", "new"].into_iter().chain(MODEL).chain(more.iter().copied()).collect()
}

fn picture(side: u32, shade: u8) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| image::Rgb([shade, x as u8, y as u8]))
}

#[test]
fn data_sets_that_are_none() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("empty")).unwrap();
    refuses(&dir, &build(&["--data", "empty"]), &["empty", "no photographs"]);
    refuses(&dir, &["data", "check", "--data", "empty"], &["empty", "no photographs"]);
    refuses(&dir, &build(&["--data", "nowhere"]), &["nowhere"]);
    dir.write("list.csv", "path,class\na.jpg,mug\n");
    refuses(&dir, &build(&["--data", "list.csv", "--class-column", "brand"]), &["list.csv", "brand"]);
    refuses(&dir, &build(&["--data", "list.csv", "--class-column", "7"]), &["list.csv", "7"]);
    refuses(&dir, &build(&["--data", "list.csv", "--split", "test"]), &["list.csv", "split"]);
    refuses(&dir, &build(&["--data", "empty", "--format", "folder", "--header", "no"]), &["table"]);
}

#[test]
fn paths_that_leave_the_folder_and_paths_listed_twice() {
    let dir = Dir::new();
    dir.write("secret.jpg", "not part of the catalogue");
    dir.write("shop/out.csv", "path,class\n../secret.jpg,mug\n");
    refuses(&dir, &build(&["--data", "shop/out.csv"]), &["out.csv", "../secret.jpg", "line 2"]);
    dir.write("shop/absolute.csv", "path,class\n/etc/hostname,mug\n");
    refuses(&dir, &build(&["--data", "shop/absolute.csv"]), &["absolute.csv", "/etc/hostname"]);
    dir.write("shop/twice.csv", "path,class\na.jpg,mug\nb.jpg,mug\n./a.jpg,cup\n");
    refuses(&dir, &build(&["--data", "shop/twice.csv"]), &["twice.csv", "a.jpg", "line 4"]);
}

/// A catalogue of one good picture and every kind of bad one.
fn broken_catalogue() -> Dir {
    let dir = Dir::new();
    std::fs::create_dir_all(dir.path("shop/mug")).unwrap();
    let good = dir.path("shop/mug/good.jpg");
    picture(64, 200).save_with_format(&good, ImageFormat::Jpeg).unwrap();
    dir.write("shop/mug/text.jpg", "this is no picture");
    dir.write("shop/mug/empty.jpg", "");
    let whole = std::fs::read(&good).unwrap();
    dir.write("shop/mug/truncated.jpg", &whole[..whole.len() / 2]);
    dir.write("shop/mug/huge.png", huge_png());
    dir
}

/// The start of a PNG of 20,000 × 20,000 pixels; whoever trusts it takes 1.2 GB.
fn huge_png() -> Vec<u8> {
    let mut small = std::io::Cursor::new(Vec::new());
    picture(1, 0).write_to(&mut small, ImageFormat::Png).unwrap();
    let mut bytes = small.into_inner();
    let side = 20_000u32.to_be_bytes();
    bytes[16..20].copy_from_slice(&side);
    bytes[20..24].copy_from_slice(&side);
    let checksum = crc32(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&checksum);
    bytes
}

/// PNG's checksum (polynomial EDB88320 reflected), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[test]
fn broken_pictures_are_named_skipped_and_counted() {
    let dir = broken_catalogue();
    let output = dir.run(build(&["--data", "shop", "--json"])).exits(0);
    let summary = &output.json()["summary"];
    assert_eq!(summary["embedded"], 1, "{summary}");
    let failures = summary["failures"].as_array().unwrap();
    for name in ["text.jpg", "empty.jpg", "truncated.jpg", "huge.png"] {
        assert!(output.stderr.contains(name), "{name} is not warned of\n{}", output.stderr);
        assert!(failures.iter().any(|f| f["path"].as_str().unwrap().ends_with(name)), "{name}: {summary}");
    }
    assert_eq!(failures.len(), 4);
}

#[test]
fn strict_stops_at_the_first_broken_picture() {
    let dir = broken_catalogue();
    dir.run(build(&["--data", "shop", "--strict"])).exits(2).complains_of(&["shop/mug/"]);
    dir.run(["search", "shop/mug/good.jpg", "--index", "new"]).exits(2).complains_of(&["no index"]);
}

#[test]
fn data_check_finds_them_and_exits_with_1() {
    let dir = broken_catalogue();
    let before = dir.snapshot();
    let found = dir.run(["data", "check", "--data", "shop", "--json"]).exits(1).json();
    assert_eq!(found["unreadable"].as_array().unwrap().len(), 4, "{found}");
    assert_eq!(dir.snapshot(), before);
}

#[test]
fn a_catalogue_without_any_readable_picture_is_an_error() {
    let dir = Dir::new();
    dir.write("shop/mug/1.jpg", "no picture");
    dir.run(build(&["--data", "shop"])).exits(2).complains_of(&["none of the 1", "1.jpg"]);
}

#[test]
fn photographs_to_search_with() {
    let dir = shop();
    let broken = broken_catalogue();
    for name in ["text.jpg", "empty.jpg", "truncated.jpg", "huge.png", "nowhere.jpg"] {
        let photo = broken.path("shop/mug").join(name).display().to_string();
        let good = broken.path("shop/mug/good.jpg").display().to_string();
        let output = dir.run(["search", &photo, &good, "--index", "shop", "--json"]).exits(1);
        let results = output.json()["results"].clone();
        assert!(results[0]["error"].as_str().unwrap().contains(name), "{results}");
        assert_eq!(results[1]["hits"].as_array().unwrap().len(), 10, "the other photograph is answered");
    }
}

#[test]
fn models_that_are_none() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let start = ["index", "build", "--name", "new", "--data", "cat"];
    let with = |model: &[&'static str]| -> Vec<&'static str> {
        start.into_iter().chain(model.iter().copied()).collect()
    };
    refuses(&dir, &with(&[]), &["--model"]);
    refuses(&dir, &with(&["--model", "resnet-from-outer-space"]), &["resnet-from-outer-space"]);
    refuses(&dir, &with(&["--model", "random:resnet99"]), &["resnet99"]);
    refuses(&dir, &with(&["--model", "cat"]), &["cat", "config.json"]);
    refuses(&dir, &with(&["--model", "random:resnet18", "--arch", "vgg"]), &["vgg"]);
    dir.write("weights.safetensors", "these are no weights");
    refuses(&dir, &with(&["--model", "weights.safetensors", "--arch", "resnet18"]), &["weights.safetensors"]);
    // Good weights of another network.
    dir.run([
        "train",
        "--data",
        "cat",
        "--arch",
        "resnet10_tiny",
        "--crop",
        "32",
        "--steps",
        "1",
        "--out",
        "run",
        "-q",
    ])
    .exits(0);
    let weights = ["--model", "run/last/model.safetensors", "--arch", "resnet18"];
    refuses(&dir, &with(&weights), &["model.safetensors", "resnet18", "missing"]);
}

#[test]
fn indexes_that_are_none_or_not_whole() {
    let dir = shop();
    let photo = "cat/products.csv";
    refuses(&dir, &["search", photo, "--index", "nowhere"], &["index-data/nowhere", "index build"]);
    refuses(&dir, &["eval", "--index", "./cat"], &["cat"]);
    let manifest = dir.path("index-data/shop/manifest.json");
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    refuses(&dir, &["eval", "--index", "shop"], &["manifest.json"]);
    std::fs::remove_file(&manifest).unwrap();
    refuses(
        &dir,
        &["eval", "--index", "shop"],
        &["index-data/shop", "unfinished", "--resume", "`semblance index compact --index shop`"],
    );
    // A new build does not write over it, whatever state it is in.
    let again = ["index", "build", "--data", "cat", "--name", "shop"];
    let again: Vec<&str> = again.into_iter().chain(MODEL).collect();
    refuses(&dir, &again, &["already holds", "unfinished"]);
    std::fs::write(&manifest, &whole).unwrap();
    refuses(&dir, &again, &["already holds", "a finished"]);
    dir.run(["eval", "--index", "shop"]).exits(0);
}

#[test]
fn an_index_of_another_model() {
    let dir = shop();
    let other = ["--model", "random:resnet10_tiny", "--crop", "32"];
    for command in [["search", "cat/products.csv", "--index", "shop"], ["eval", "--quiet", "--index", "shop"]]
    {
        let args: Vec<&str> = command.into_iter().chain(other).collect();
        refuses(&dir, &args, &["index-data/shop", "built with model", "build a new index", "hint: --model"]);
    }
}

#[test]
fn k_of_zero() {
    let dir = Dir::new();
    refuses(&dir, &["search", "a.jpg", "--index", "shop", "-k", "0"], &["-k", "at least 1"]);
    refuses(&dir, &["eval", "--index", "shop", "-k", "1,0,10"], &["-k", "at least 1"]);
    refuses(&dir, &["eval", "--index", "shop", "-k", "ten"], &["-k", "ten"]);
}

#[test]
fn output_that_cannot_be_written() {
    // A file where a folder should be stops even those whom permissions do not.
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    dir.write("taken", "a file");
    let index: Vec<&str> =
        ["index", "build", "--data", "cat", "--name", "taken/shop"].into_iter().chain(MODEL).collect();
    refuses(&dir, &index, &["taken"]);
    let indexes = ["index", "build", "--data", "cat", "--name", "shop", "--index-dir", "taken"];
    refuses(&dir, &indexes.into_iter().chain(MODEL).collect::<Vec<_>>(), &["taken"]);
    let embed: Vec<&str> = ["embed", "--data", "cat", "--out", "taken"].into_iter().chain(MODEL).collect();
    refuses(&dir, &embed, &["taken"]);
    refuses(&dir, &["data", "sample", "--out", "taken"], &["taken"]);
    refuses(&dir, &["data", "sample", "--out", "cat"], &["cat", "not empty"]);
    let train = [
        "train",
        "--data",
        "cat",
        "--arch",
        "resnet10_tiny",
        "--crop",
        "32",
        "--steps",
        "1",
        "-q",
        "--out",
        "taken",
    ];
    refuses(&dir, &train, &["taken"]);
    // A folder with other things in it is no place for an index.
    refuses(
        &dir,
        &["index", "build", "--data", "cat", "--name", "./cat", MODEL[0], MODEL[1]],
        &["cat", "not empty"],
    );
}
