use super::*;
use semblance_embed::dataset::Sample;
use serde_json::json;

fn dataset() -> Dataset {
    let sample = |path: &str| Sample { path: path.into(), class: None, super_class: None, split: None };
    Dataset::new("/photos", "x", ["a/1.jpg", "2", "3"].map(sample).to_vec())
}

fn read(name: &str, text: impl AsRef<[u8]>) -> Result<(Metadata, MetadataSummary)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    Metadata::read(&path, &dataset())
}

#[test]
fn lines_and_tables_say_the_same() {
    let lines = "{\"key\": \"a/1.jpg\", \"price\": 19.5, \"new\": true, \"brand\": \"Acme, Inc.\"}\n\n{\"key\": \"2\"}\n";
    let comma = "path,price,new,brand\na/1.jpg,19.5,true,\"Acme, Inc.\"\n2,,,\n";
    let tab = "price\tnew\tbrand\tkey\n19.5\ttrue\tAcme, Inc.\ta/1.jpg\n\t\t\t2\n";
    let semicolon =
        "\u{feff}sep=;\r\nFile Name;price;new;brand;\r\n./a/1.jpg;19.5;true;Acme, Inc.;\r\n2;;;;\r\n;;;;\r\n";
    for (name, text) in
        [("m.jsonl", lines), ("m.csv", comma), ("m.tsv", tab), ("m.csv", tab), ("m.txt", semicolon)]
    {
        let (metadata, summary) = read(name, text).unwrap();
        assert_eq!(
            (metadata.len(), summary.rows, summary.unmatched, summary.without_row),
            (2, 2, 0, 1),
            "{name}"
        );
        let names: Vec<String> = metadata.of("a/1.jpg").keys().map(|name| column_name(name)).collect();
        assert_eq!(names, ["brand", "new", "price"], "{name}");
        let want = json!({"price": 19.5, "new": true, "brand": "Acme, Inc."});
        assert_eq!(Value::Object(metadata.of("a/1.jpg")), want, "{name}");
        assert!(metadata.of("2").is_empty() && metadata.of("3").is_empty());
    }
    let wide: Vec<u8> = semicolon.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read("m.csv", wide).unwrap().0.len(), 2);
}

#[test]
fn faults_are_told_with_their_line() {
    let refused = |name: &str, text: &str| read(name, text).unwrap_err().to_string();
    assert!(refused("m.jsonl", "{\"key\": \"a\"}\n[1]\n").contains("line 2: it is no JSON object"));
    assert!(refused("m.jsonl", "{\"price\": 1}").contains("line 1: it has neither"));
    assert!(refused("m.jsonl", "{\"key\": \"2\", \"a\": 1, \"a\": 2}").contains("\"a\" is there twice"));
    assert!(refused("m.csv", "key,x\na,1\na,2\n").contains("line 3: \"a\" was there before"));
    assert!(refused("m.csv", "key,x\na\n").contains("line 2"));
    assert!(refused("m.csv", "key,x\n2,1\n,2\n").contains("line 3"));
    assert!(refused("m.csv", "name,x\n2,1\n").contains("it has \"name\", \"x\""));
    assert!(refused("m.csv", "key,x,x\n2,1,2\n").contains("two columns"));
    assert!(refused("m.csv", "key,x\n2,\"open\n3,1\n").contains("line 2: the quoted field"));
    assert!(refused("m.csv", "key,x\n2,1\n./2,2\n").contains("line 3: \"./2\" is the picture of line 2"));
    assert!(refused("m.csv", "").contains("empty"));
    assert!(refused("m.csv", "key,x\n").contains("no rows"));
}

#[test]
fn rows_that_belong_to_no_picture_are_counted() {
    let (metadata, summary) = read("m.csv", "path,x\n./2,1\nphotos/a/1.jpg,2\ngone.jpg,3\n").unwrap();
    assert_eq!((metadata.len(), summary.unmatched, summary.without_row), (1, 2, 2));
    assert_eq!(summary.unmatched_keys, ["photos/a/1.jpg", "gone.jpg"]);
    let error = read("m.csv", "path,x\nphotos/a/1.jpg,2\nphotos/2,3\n").unwrap_err().to_string();
    assert!(error.contains("none of its 2 rows") && error.contains("\"photos/a/1.jpg\""), "{error}");
    assert!(error.contains("\"a/1.jpg\""), "a key the data set has: {error}");
}

#[test]
fn identifiers_stay_text() {
    let (metadata, summary) =
        read("m.csv", "path,sku,ean\n2,12345678901234567890103,9007199254740993\n3,5,2\n").unwrap();
    assert_eq!(
        Value::Object(metadata.of("2")),
        json!({"sku": "12345678901234567890103", "ean": 9007199254740993u64})
    );
    assert_eq!(metadata.of("3")["sku"], "5", "a column has one type");
    assert_eq!((summary.remarks.len(), summary.remarks[0].field.as_str()), (1, "sku"));
    let lines = "{\"key\": \"2\", \"sku\": 12345678901234567890103, \"v\": 1.10}\n{\"key\": 3, \"sku\": 5, \"v\": 1e3}\n";
    let (metadata, _) = read("m.jsonl", lines).unwrap();
    assert_eq!(Value::Object(metadata.of("2")), json!({"sku": "12345678901234567890103", "v": 1.1}));
    assert_eq!(Value::Object(metadata.of("3")), json!({"sku": "5", "v": 1000.0}));
}

#[test]
fn names_and_texts_are_composed() {
    let (metadata, _) = read("m.csv", "path;gro\u{308}be\n2;Mo\u{308}bel\n").unwrap();
    assert_eq!(Value::Object(metadata.of("2")), json!({"gröbe": "Möbel"}));
}

#[test]
fn columns_with_the_name_of_an_items_own_field_are_told() {
    let sample = |path: &str, class: &str| Sample {
        path: path.into(),
        class: Some(class.into()),
        super_class: None,
        split: None,
    };
    let set = Dataset::new("/photos", "x", vec![sample("1", "shoe"), sample("2", "hat")]);
    let dir = tempfile::tempdir().unwrap();
    let told = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let remarks = Metadata::read(&path, &set).unwrap().1.remarks;
        remarks.iter().map(|r| (r.field.clone(), r.line, r.to_string())).collect::<Vec<_>>()
    };
    let table = told("m.csv", "path,class,id,price\n1,shoe,4,5\n2,OTHER,5,6\n");
    let lines = told(
        "m.jsonl",
        "{\"path\": \"1\", \"class\": \"shoe\", \"id\": 4}\n{\"path\": \"2\", \"class\": \"OTHER\"}",
    );
    for (told, lines) in [(table, [3, 2]), (lines, [2, 1])] {
        let places: Vec<_> = told.iter().map(|(field, line, _)| (field.as_str(), *line)).collect();
        assert_eq!(places, [("class", lines[0]), ("id", lines[1])]);
        assert!(
            told[0].2.contains("write \"metadata.class\"") && told[0].2.contains("rename"),
            "{}",
            told[0].2
        );
    }
    // A table that says the same as the data set says nothing new.
    assert_eq!(told("m.csv", "path,class,super_class,price\n1,shoe,,5\n2,hat,,6\n"), []);
}
