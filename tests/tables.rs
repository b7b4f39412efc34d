//! Tables in every dialect, metadata that joins, folders with all kinds of entries: nothing is lost without a word.

use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

use crate::util::{Dir, MODEL, Output};

/// Writes a small JPEG file, whatever its name says.
fn picture(dir: &Dir, name: &str, shade: u8) {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = RgbImage::from_fn(32, 32, |x, y| image::Rgb([shade, x as u8 * 8, y as u8 * 8]));
    picture.write_to(&mut bytes, ImageFormat::Jpeg).expect("a picture");
    dir.write(name, bytes.into_inner());
}

/// Six pictures of two classes below `p`, with spaces and a comma in their paths.
fn six_pictures() -> Dir {
    let dir = Dir::new();
    let names = ["a b/1.png", "a b/2.png", "a b/3, red.png", "c/1.png", "c/2.png", "c/3.png"];
    for (name, shade) in names.into_iter().zip((0..).step_by(40)) {
        picture(&dir, &format!("p/{name}"), shade);
    }
    dir
}

fn check(dir: &Dir, data: &str) -> Output {
    dir.run(["data", "check", "--json", "--data", data])
}

fn build(dir: &Dir, args: &[&str]) -> Output {
    dir.run(["index", "build", "--json"].iter().chain(&MODEL).chain(args))
}

fn keys_where(dir: &Dir, item: &str, condition: &str) -> Vec<String> {
    let args = ["search", "--index", "shop", "--json", "-k", "50", item, "--where", condition];
    let found = dir.run(args).exits(0).json();
    let hits = found["results"][0]["hits"].as_array().expect("hits");
    let mut keys: Vec<String> =
        hits.iter().map(|hit| hit["key"].as_str().expect("a key").to_owned()).collect();
    keys.sort();
    keys
}

#[test]
fn tables_of_every_dialect_list_the_same_pictures() {
    let dir = six_pictures();
    let rows: [(&str, &str); 6] = [
        ("p/a b/1.png", "apple"),
        ("p/a b/2.png", "apple"),
        ("p/a b/3, red.png", "apple"),
        ("p/c/1.png", "pear"),
        ("p/c/2.png", "pear"),
        ("p/c/3.png", "pear"),
    ];
    let table = |header: &str, row: &dyn Fn(&str, &str) -> String| {
        let rows: String = rows.iter().map(|(path, class)| row(path, class) + "\n").collect();
        format!("{header}{rows}")
    };
    let semicolons = table("path;class\n", &|p, c| format!("{p};{c}"));
    let tables = [
        ("header.csv", table("path;class;\"price, EUR\"\n", &|p, c| format!("\"{p}\";{c};\"1,50\""))),
        ("bare.csv", table("path;class;price, EUR\n", &|p, c| format!("{p};{c};1,50"))),
        ("no_header.csv", table("", &|p, c| format!("\"{p}\";{c}"))),
        ("sep_line.csv", format!("sep=;\n{semicolons}")),
        ("trailing.csv", table("path,class,note\n", &|p, c| format!("\"{p}\",{c},")) + ",,\n,,\n"),
        ("backslash.csv", table("path,class\n", &|p, c| format!("\"{}\",{c}", p.replace('/', "\\")))),
        ("case.tsv", table("CLASS\tFile Name\n", &|p, c| format!("{c}\t./{p}"))),
        ("escaped.csv", table("path,class\n", &|p, c| format!("\"{}\",{c}", p.replace(' ', "%20")))),
    ];
    for (name, content) in tables {
        dir.write(name, content);
        let found = check(&dir, name).exits(0).json();
        assert_eq!(
            (&found["samples"], &found["classes"], &found["missing"]),
            (&json!(6), &json!(2), &json!([])),
            "{name}"
        );
    }
    let wide: Vec<u8> = semicolons.encode_utf16().flat_map(u16::to_le_bytes).collect();
    dir.write("excel.txt", [b"\xff\xfe", &wide[..]].concat());
    assert_eq!(check(&dir, "excel.txt").exits(0).json()["samples"], 6);
    dir.write("spaces.txt", table("", &|p, c| format!("{p} {c}")));
    check(&dir, "spaces.txt").exits(2).complains_of(&["spaces.txt, line 3", "4 fields", "another character"]);
    dir.write("latin.csv", b"path,class\np/c/1.png,\xc4pfel\n");
    check(&dir, "latin.csv").exits(2).complains_of(&["latin.csv, line 2", "Äpfel", "UTF-8"]);
    let odd = dir.run(["data", "check", "--json", "--data", "header.csv", "--delimiter", ","]);
    odd.exits(2).complains_of(&["header.csv"]);
}

#[test]
fn an_open_quote_is_an_error_that_names_its_line() {
    let dir = six_pictures();
    let start = "path,class\np/a b/1.png,apple\np/a b/2.png,\"big apple\np/c/1.png,pear\n";
    for (name, rest) in [
        ("never.csv", "p/c/2.png,pear\np/c/3.png,pear\n"),
        ("next.csv", "p/c/2.png,\"pear\"\np/c/3.png,pear\n"),
        ("end.csv", "p/c/2.png,pear\"\np/c/3.png,pear\n"),
        ("wide.csv", "p/c/2.png,pear,\"\np/c/3.png,pear,\n"),
    ] {
        dir.write(name, format!("{start}{rest}"));
        check(&dir, name).exits(2).complains_of(&[&format!("{name}, line 3"), "quoted field"]);
        let metadata = ["--data", "p", "--metadata", name, "--name", "x"];
        build(&dir, &metadata).exits(2).complains_of(&[&format!("{name}, line 3"), "quoted field"]);
    }
}

/// Pictures `g/c0/0.jpg` to `g/c1/3.jpg`.
fn gallery() -> Dir {
    let dir = Dir::new();
    for shade in 0..8 {
        picture(&dir, &format!("g/c{}/{}.jpg", shade / 4, shade % 4), shade * 30);
    }
    dir
}

fn priced(prefix: &str, end: &str) -> String {
    let row = |i: u8| format!("{prefix}c{}/{}.jpg,{i}{end}\n", i / 4, i % 4);
    format!("path,price\n{}", (0..8).map(row).collect::<String>())
}

#[test]
fn metadata_joins_by_every_way_to_write_a_key() {
    let dir = gallery();
    let absolute = dir.path("g/").display().to_string();
    let prefixes = ["", "./", "g/", "../g/", "x/../", &absolute, &format!("file://{absolute}")];
    for prefix in prefixes {
        dir.write("lists/m.csv", priced(prefix, ".50"));
        let built = build(&dir, &["--data", "g", "--metadata", "lists/m.csv", "--name", "shop", "--replace"]);
        let built = built.exits(0).json();
        assert_eq!(built["metadata"]["unmatched"], 0, "{prefix}");
        assert_eq!(keys_where(&dir, "g/c0/0.jpg", "price < 2"), ["c0/0.jpg", "c0/1.jpg"], "{prefix}");
    }
    dir.write("lists/m.csv", priced("g\\", "").replace('/', "\\"));
    assert_eq!(
        build(&dir, &["--data", "g", "--metadata", "lists/m.csv", "--name", "b"]).exits(0).json()["metadata"]
            ["unmatched"],
        0
    );
}

#[test]
fn metadata_reaches_pictures_that_the_index_has_already() {
    let dir = gallery();
    build(&dir, &["--data", "g", "--name", "shop"]).exits(0);
    dir.write("m.csv", priced("", ".50"));
    let add = ["index", "add", "--json", "--index", "shop", "--data", "g", "--metadata", "m.csv"];
    let added = dir.run(add).exits(0).json();
    assert_eq!((&added["summary"]["described"], &added["summary"]["embedded"]), (&json!(8), &json!(0)));
    assert_eq!(keys_where(&dir, "g/c0/0.jpg", "price < 2"), ["c0/0.jpg", "c0/1.jpg"]);
    // Other fields stay, and what is the same is not written again.
    dir.write("m.csv", "path,colour\nc0/1.jpg,red\n");
    assert_eq!(dir.run(add).exits(0).json()["summary"]["described"], 1);
    assert_eq!(dir.run(add).exits(0).json()["summary"]["described"], 0);
    assert_eq!(keys_where(&dir, "g/c0/0.jpg", "colour = red"), ["c0/1.jpg"]);
    assert_eq!(keys_where(&dir, "g/c0/0.jpg", "price < 2"), ["c0/0.jpg", "c0/1.jpg"]);
}

#[test]
fn metadata_that_joins_nothing_is_an_error_and_some_of_it_a_warning() {
    let dir = gallery();
    dir.write("m.csv", priced("photos/", ""));
    let new = ["--data", "g", "--metadata", "m.csv", "--name", "shop"];
    build(&dir, &new).exits(2).complains_of(&[
        "m.csv",
        "none of its 8 rows",
        "photos/c0/0.jpg",
        // With --json the error is JSON too.
        r#"are like \"c0/0.jpg\""#,
    ]);
    dir.write("m.csv", priced("", "") + "gone/9.jpg,5\n");
    build(&dir, &[&new[..], &["--strict"]].concat()).exits(2).complains_of(&["gone/9.jpg", "--strict"]);
    let built = build(&dir, &new).exits(0).complains_of(&["1 of 9 rows", "gone/9.jpg"]).json();
    assert_eq!(built["metadata"]["unmatched_keys"], json!(["gone/9.jpg"]));
    dir.write("m.csv", "path,price\nc0/0.jpg,1\n./c0/0.jpg,2\n");
    let twice = ["--data", "g", "--metadata", "m.csv", "--name", "other"];
    build(&dir, &twice).exits(2).complains_of(&["m.csv, line 3", "line 2"]);
}

#[test]
fn identifiers_keep_their_digits() {
    let dir = gallery();
    let row = |i: u64| {
        let sku = format!("123456789012345678901{i:02}");
        format!("c{}/{}.jpg;{sku};00{i};{};{}.90\r\n", i / 4, i % 4, 9_007_199_254_740_992 + i, i)
    };
    dir.write(
        "m.csv",
        format!("sep=;\r\npath;sku;code;ean;price\r\n{}", (0..8).map(row).collect::<String>()),
    );
    let built = build(&dir, &["--data", "g", "--metadata", "m.csv", "--name", "shop"]).exits(0);
    let built = built.complains_of(&["\"sku\" is text", "\"code\" is text"]).json();
    let remarks = built["metadata"]["remarks"].as_array().expect("remarks");
    let fields: Vec<&Value> = remarks.iter().map(|remark| &remark["field"]).collect();
    assert_eq!(fields, ["code", "sku"]);
    for (condition, keys) in [
        ("sku = \"12345678901234567890103\"", &["c0/3.jpg"][..]),
        ("code = 005", &["c1/1.jpg"]),
        ("ean = 9007199254740993", &["c0/1.jpg"]),
        ("price < 1.95", &["c0/0.jpg", "c0/1.jpg"]),
        ("price = 2.90", &["c0/2.jpg"]),
    ] {
        assert_eq!(keys_where(&dir, "g/c0/0.jpg", condition), keys, "{condition}");
    }
}

#[test]
fn both_unicode_forms_of_a_name_are_one() {
    let dir = Dir::new();
    for (folder, name) in [("nfc", "Äpfel"), ("nfd", "A\u{308}pfel")] {
        for shade in 0..3 {
            picture(&dir, &format!("{folder}/{name}/{shade}.png"), shade * 30);
            picture(&dir, &format!("{folder}/Birne/{shade}.png"), 100 + shade * 30);
        }
    }
    build(&dir, &["--data", "nfd", "--name", "shop"]).exits(0);
    let report = dir.run(["eval", "--index", "shop", "--queries", "nfc", "--json"]).exits(0);
    assert!(report.stdout.contains("\"scored\": 6"), "{}", report.stdout);
    dir.write("list.csv", "path,class\nnfd/Äpfel/0.png,x\nnfd/Äpfel/1.png,x\n");
    let found = check(&dir, "list.csv").exits(0).complains_of(&["2 paths", r"A\u{308}pfel"]).json();
    assert_eq!(found["missing"], json!([]));
    dir.write("m.csv", "path,price\nÄpfel/0.png,1\nÄpfel/1.png,2\n");
    let built = build(&dir, &["--data", "nfd", "--metadata", "m.csv", "--name", "priced"]).exits(0).json();
    assert_eq!(built["metadata"]["unmatched"], 0);
    let found = dir.run(["search", "--index", "priced", "--item", "Äpfel/0.png", "--json"]).exits(0).json();
    assert_eq!(found["results"][0]["hits"].as_array().map(Vec::len), Some(5));
    let removed = dir.run(["index", "remove", "--json", "--index", "priced", "Äpfel/0.png"]).exits(0).json();
    assert_eq!((&removed["removed"], &removed["items"]), (&json!(1), &json!(5)));
    // The same pictures under their other names are there already.
    let added = dir.run(["index", "add", "--json", "--index", "shop", "--data", "nfc"]).exits(0).json();
    assert_eq!((&added["summary"]["embedded"], &added["items"]), (&json!(0), &json!(6)));
    for shade in 0..3 {
        picture(&dir, &format!("nfd/Äpfel/{shade}.png"), shade * 30);
    }
    let found = check(&dir, "nfd").exits(0).complains_of(&["2 Unicode forms", "one class"]).json();
    assert_eq!((&found["samples"], &found["classes"]), (&json!(9), &json!(2)));
}

#[test]
fn pictures_are_known_by_their_content_and_the_rest_is_counted() {
    let dir = Dir::new();
    let names =
        ["apple/0.jpg", "apple/1.jfif", "pear/1.pjpeg", "pear/0.jfif", "pear/2", "pear/3.mpo", "pear/4.heic"];
    for (shade, name) in (0..).step_by(30).zip(names) {
        picture(&dir, &format!("d/{name}"), shade);
    }
    let found = check(&dir, "d").exits(0).json();
    assert_eq!((&found["samples"], &found["classes"]), (&json!(7), &json!(2)), "a JPEG file with any ending");
    for (name, content) in [
        ("apple/5.heic", &b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"[..]),
        ("apple/6.heic", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"),
        ("apple/7.avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"),
        ("apple/notes.txt", b"words"),
        ("apple/._0.jpg", b"x"),
        ("apple/.hidden.jpg", b"x"),
        ("apple/Thumbs.db", b"x"),
        ("@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", b"x"),
        ("$RECYCLE.BIN/x.jpg", b"x"),
        ("__MACOSX/apple/0.jpg", b"x"),
        ("fig/readme.md", b"x"),
    ] {
        dir.write(&format!("d/{name}"), content);
    }
    let checked = check(&dir, "d").exits(1);
    let checked = checked.complains_of(&[
        "2 .heic files (HEIC is not supported",
        "1 .avif file",
        "without a picture",
        "fig",
    ]);
    let found = checked.json();
    assert_eq!((&found["samples"], &found["classes"]), (&json!(7), &json!(2)));
    let counts = &found["counts"];
    assert_eq!((&counts["left_out"], &counts["empty_folders"]), (&json!(3), &json!(1)), "{counts}");
    // Two texts, three hidden or system files, three system folders.
    assert_eq!(counts["passed_over"], 8, "{}", found["left_out"]);
    let built =
        build(&dir, &["--data", "d", "--name", "shop"]).exits(0).complains_of(&["2 .heic files"]).json();
    assert_eq!((&built["summary"]["embedded"], &built["left_out"]), (&json!(7), &found["left_out"]));
    build(&dir, &["--data", "d", "--name", "other", "--strict"])
        .exits(2)
        .complains_of(&["--strict", ".heic", ".avif"]);
    let embed = |more: &[&'static str]| {
        dir.run(["embed", "--data", "d", "--out", "out", "--json"].iter().chain(&MODEL).chain(more))
    };
    embed(&["--strict"]).exits(2).complains_of(&["--strict", ".heic"]);
    assert_eq!(embed(&[]).exits(0).json()["left_out"], found["left_out"]);
    let train =
        ["train", "--data", "d", "--arch", "resnet10_tiny", "--crop", "32", "--steps", "1", "--holdout", "0"];
    let batch = ["--batch", "4", "--per-class", "2"];
    let trained = dir
        .run(train.iter().chain(&batch).chain(&["--out", "run", "--json"]))
        .exits(0)
        .complains_of(&["2 .heic files"]);
    assert_eq!(trained.json()["left_out"], found["left_out"]);
}

#[cfg(unix)]
#[test]
fn one_bad_entry_is_counted_and_does_not_stop_the_rest() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    let dir = Dir::new();
    picture(&dir, "loop/a/0.jpg", 10);
    picture(&dir, "loop/b/0.jpg", 90);
    picture(&dir, "elsewhere/0.jpg", 50);
    assert_eq!(check(&dir, "loop").exits(0).json()["samples"], 2);
    symlink("..", dir.path("loop/a/up")).expect("a link");
    symlink("../elsewhere", dir.path("loop/c")).expect("a link");
    symlink("nowhere", dir.path("loop/b/broken")).expect("a link");
    std::fs::write(dir.path("loop/a").join(std::ffi::OsStr::from_bytes(b"\xe4.jpg")), "x").expect("a file");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path("loop/b/1.jpg")).expect("a socket");
    let found = check(&dir, "loop").exits(1).complains_of(&["a/up", "loop", r"a/\xE4.jpg", "b/1.jpg"]).json();
    assert_eq!(
        (&found["samples"], &found["counts"]["left_out"]),
        (&json!(2), &json!(5)),
        "{}",
        found["left_out"]
    );
    let reasons: Vec<&str> = found["left_out"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|l| l["reason"].as_str().expect("a reason"))
        .collect();
    assert_eq!(reasons, ["link_loop", "broken_link", "link_outside", "name_not_utf8", "special_file"]);
    build(&dir, &["--data", "loop", "--name", "shop"]).exits(0);
    build(&dir, &["--data", "loop", "--name", "other", "--strict"]).exits(2).complains_of(&["a/up"]);
}

#[test]
fn json_lines_list_pictures_as_tables_do() {
    let dir = six_pictures();
    let lines = "{\"path\": \"p/c/1.png\", \"class\": 7, \"price\": 3}\n{\"class\": \"x\", \"path\": \"p/a b/1.png\"}\n";
    dir.write("rows.jsonl", lines);
    let found = check(&dir, "rows.jsonl").exits(0).json();
    assert_eq!((&found["samples"], &found["classes"], &found["missing"]), (&json!(2), &json!(2), &json!([])));
    build(&dir, &["--data", "rows.jsonl", "--metadata", "rows.jsonl", "--name", "shop"]).exits(0);
    assert_eq!(keys_where(&dir, "p/a b/1.png", "price = 3"), ["p/c/1.png"]);
    dir.write("bad.jsonl", "{\"path\": \"p/c/1.png\"}\npear\n");
    check(&dir, "bad.jsonl").exits(2).complains_of(&["bad.jsonl", "line 2", "JSON object"]);
    // A path that climbs above the root and comes back, and one that leads to another machine.
    dir.write("p/back.csv", "path\n../p/c/1.png\n");
    assert_eq!(check(&dir, "p/back.csv").exits(0).json()["missing"], json!([]));
    dir.write("web.csv", "path\nhttps://shop.example/1.png\n");
    check(&dir, "web.csv").exits(2).complains_of(&["https://shop.example/1.png", "web address", "download"]);
}

#[test]
fn what_a_filter_does_not_see_is_told() {
    let dir = gallery();
    let prices = ["3", "1,5", "200", "4", "5", "6", "7", "8"];
    let row = |(i, price): (usize, &str)| format!("c{}/{}.jpg;{price};OTHER\n", i / 4, i % 4);
    let rows: String = prices.into_iter().enumerate().map(row).collect();
    dir.write("m.csv", format!("path;price;class\n{rows}"));
    let built = build(&dir, &["--data", "g", "--metadata", "m.csv", "--name", "shop"]).exits(0);
    let built =
        built.complains_of(&["\"price\" has 1 values of 8", "write a point", "\"metadata.class\"", "rename"]);
    let remarks = built.json()["metadata"]["remarks"].as_array().map(Vec::len);
    assert_eq!(remarks, Some(2));
    let ask = |condition: &str| {
        dir.run(["search", "--index", "shop", "g/c0/0.jpg", "--json", "--where", condition])
    };
    let found = ask("price < 5").exits(0).complains_of(&["passes over 1 of its 8 values", "\"1,5\""]).json();
    assert_eq!(found["warnings"].as_array().map(Vec::len), Some(1));
    assert_eq!(keys_where(&dir, "g/c0/0.jpg", "price < 5"), ["c0/0.jpg", "c0/3.jpg"]);
    assert_eq!(keys_where(&dir, "g/c0/0.jpg", "price between 4 and 5"), ["c0/3.jpg", "c1/0.jpg"]);
    assert_eq!(keys_where(&dir, "g/c0/0.jpg", "price in (3, 200)"), ["c0/0.jpg", "c0/2.jpg"]);
    ask("class = OTHER").exits(0).complains_of(&["metadata.class"]);
    assert_eq!(keys_where(&dir, "g/c0/0.jpg", "metadata.class = OTHER").len(), 8);
    ask("price < 1e400").exits(2).complains_of(&["1e400", "beyond all numbers"]);
}
