use super::*;
use crate::dataset::{DatasetConfig, Format};
use proptest::prelude::*;

fn read_bytes(content: &[u8], config: TableConfig) -> Result<Dataset, DatasetError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list.csv");
    std::fs::write(&file, content).unwrap();
    Dataset::open(&DatasetConfig { format: Format::Table(config), ..DatasetConfig::new(&file) })
}

fn read(content: &str) -> Result<Dataset, DatasetError> {
    read_bytes(content.as_bytes(), TableConfig::default())
}

fn rows(set: &Dataset) -> Vec<(String, &str, &str)> {
    let text = |o: &'_ Option<String>| o.clone().unwrap_or_default().leak() as &'static str;
    set.samples.iter().map(|s| (s.key(), text(&s.class), text(&s.super_class))).collect()
}

fn row<'a>(path: &str, class: &'a str, super_class: &'a str) -> (String, &'a str, &'a str) {
    (path.to_owned(), class, super_class)
}

#[test]
fn without_header_columns_go_by_place() {
    let set = read("train/a 1.jpg, 0, 7\ntrain/b.jpg, 12, 3\n").unwrap();
    assert_eq!(rows(&set), [row("train/a 1.jpg", "0", "7"), row("train/b.jpg", "12", "3")]);
    assert_eq!(rows(&read("a b.jpg\nc.jpg").unwrap()), [row("a b.jpg", "", ""), row("c.jpg", "", "")]);
    assert_eq!(rows(&read("n01/a.JPEG 5\nn02/b.JPEG 6\n").unwrap())[1], row("n02/b.JPEG", "6", ""));
}

#[test]
fn with_header_columns_go_by_name() {
    let set =
        read("\u{feff}Category;Label;File;Split\r\n cups ; \"mug; red\" ;./m/1.png;TRAIN\r\n;;m/2.png;\r\n")
            .unwrap_err();
    // The quote opens after a space, so the semicolon inside it splits the field: one too many, and a wrong file name
    // is better refused than guessed.
    assert!(matches!(set, DatasetError::FieldCount { line: 2, fields: 5, columns: 4, .. }), "{set}");
    let set =
        read("\u{feff}Category;Label;File;Split\r\n cups ;\"mug; red\";./m/1.png;TRAIN\r\n;;m/2.png;\r\n")
            .unwrap();
    assert_eq!(rows(&set), [row("m/1.png", "mug; red", "cups"), row("m/2.png", "", "")]);
    assert_eq!(set.samples[0].split, Some(Split::Train));
    assert_eq!(set.samples[1].split, None);
    assert_eq!(rows(&read("path\tclass\na.jpg\t \"x\"\n").unwrap()), [row("a.jpg", "x", "")]);
}

#[test]
fn columns_by_number_count_from_one() {
    let config = TableConfig {
        path_column: Some(Column::from("3")),
        class_column: Some(Column::from(" 1 ")),
        ..TableConfig::default()
    };
    let set = read_bytes(b"shoe,x,a.jpg\nboot,y,b.jpg\n", config.clone()).unwrap();
    assert_eq!(rows(&set)[1].1, "boot");
    let error = read_bytes(b"shoe,a.jpg\n", config).unwrap_err();
    assert!(
        matches!(&error, DatasetError::MissingColumn { column, present, .. } if column == "3" && present.len() == 2)
    );
    let zero = TableConfig { path_column: Some(Column::Number(0)), ..TableConfig::default() };
    assert!(matches!(read_bytes(b"a.jpg,1\n", zero), Err(DatasetError::MissingColumn { .. })));
}

#[test]
fn a_missing_column_is_answered_with_those_present() {
    let config = TableConfig { class_column: Some(Column::from("brand")), ..TableConfig::default() };
    let error = read_bytes(b"path,label\na.jpg,1\n", config.clone()).unwrap_err().to_string();
    assert!(
        error.contains("\"brand\"") && error.contains("\"path\"") && error.contains("\"label\""),
        "{error}"
    );
    let no_header = TableConfig { header: Header::No, ..config };
    assert!(matches!(read_bytes(b"a.jpg,1\n", no_header), Err(DatasetError::NoHeader { .. })));
    let error = read("name,price\nfoo,1\n").unwrap_err().to_string();
    assert!(error.contains("\"name\"") && error.contains("\"price\""), "{error}");
}

#[test]
fn bad_rows_are_named_by_line_and_value() {
    let line_of = |content: &str| match read(content).unwrap_err() {
        DatasetError::Outside { line, value, .. } => (line.unwrap(), value),
        DatasetError::EmptyPath { line, .. } => (line, String::new()),
        DatasetError::ShortRow { line, fields, .. } => (line, fields.to_string()),
        DatasetError::Duplicate { line, value, first, .. } => (line, format!("{value} {first}")),
        other => panic!("{other}"),
    };
    assert_eq!(line_of("a.jpg,1\n\n\n../b.jpg,2\n"), (4, "../b.jpg".to_owned()));
    assert_eq!(line_of("a.jpg,1\r\n\r\n/etc/b.jpg,2\r\n"), (3, "/etc/b.jpg".to_owned()));
    assert_eq!(line_of("a.jpg,1\n ,2\n"), (2, String::new()));
    assert_eq!(line_of("a.jpg,1\nb.jpg\n"), (2, "1".to_owned()));
    assert_eq!(line_of("a.jpg,1\n\"b\n.jpg\",1\nx/../../a.jpg,2\n"), (4, "x/../../a.jpg".to_owned()));
    assert_eq!(line_of("a.jpg,1\nx/../a.jpg,2\n"), (2, "a.jpg 1".to_owned()));
    assert_eq!(line_of("a.jpg,1\nb.jpg,1\n./a.jpg,2\n"), (3, "a.jpg 1".to_owned()));
    let error = read_bytes(b"a.jpg,1\nb\xff.jpg,2\n", TableConfig::default()).unwrap_err();
    assert!(matches!(error, DatasetError::NotUtf8 { line: 2, .. }), "{error}");
    assert!(error.to_string().contains("list.csv, line 2"), "{error}");
}

/// Tables as spreadsheets and databases write them.
#[test]
fn dialects_are_read_alike() {
    let want =
        [row("a b/1.png", "apple", ""), row("a b/3, red.png", "apple", ""), row("c/1.png", "pear", "")];
    for content in [
        "path;class;\"price, EUR\"\n\"a b/1.png\";apple;\"1,50\"\n\"a b/3, red.png\";apple;\"1,50\"\nc/1.png;pear;\"1,50\"\n",
        "path;class;price, EUR\na b/1.png;apple;1,50\na b/3, red.png;apple;1,50\nc/1.png;pear;1,50\n",
        "\"a b/1.png\";apple\n\"a b/3, red.png\";apple\n\"c/1.png\";pear\n",
        "sep=;\r\npath;class\r\na b/1.png;apple\r\na b/3, red.png;apple\r\nc/1.png;pear\r\n",
        "PATH,Class,note,,\na b/1.png,apple,,,\n\"a b/3, red.png\",apple,,,\nc/1.png,pear,,,\n,,,,\n,,,,\n",
        "class|File Name\napple|a b/1.png\napple|a b/3, red.png\npear|c/1.png\n",
        "path\tclass\ra b/1.png\tapple\ra b/3, red.png\tapple\rc/1.png\tpear\r",
    ] {
        assert_eq!(rows(&read(content).unwrap()), want, "{content}");
        let wide: Vec<u8> = content.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let set = read_bytes(&[b"\xff\xfe", &wide[..]].concat(), TableConfig::default()).unwrap();
        assert_eq!(rows(&set), want, "UTF-16: {content}");
    }
}

#[test]
fn columns_that_cannot_be_told_apart_are_refused() {
    let error = |content: &str| read(content).unwrap_err().to_string();
    let found = error("path,class,class\na.jpg,x,y\n");
    assert!(found.contains("two columns") && found.contains("class"), "{found}");
    let found = error("shoe,a.jpg\nboot,b.jpg\n");
    assert!(found.contains("\"shoe\" in column 1") && found.contains("column 2"), "{found}");
    let found = error("my shop/a.jpg x\nmy shop/b.jpg y\n");
    assert!(found.contains("column 2") && found.contains("spaces"), "{found}");
    let found = error("path,class,\na.jpg,cup, red\n");
    assert!(found.contains("line 2: 3 fields"), "{found}");
}

#[test]
fn empty_tables_are_errors() {
    for content in ["", "\n \n", "path,class\n"] {
        assert!(matches!(read(content), Err(DatasetError::EmptyTable { .. })), "{content:?}");
    }
}

#[cfg(unix)]
#[test]
fn links_out_of_the_root_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("x.jpg"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path().join("x.jpg"), dir.path().join("x.jpg")).unwrap();
    std::fs::write(dir.path().join("products.csv"), "path,class\nx.jpg,1\n").unwrap();
    let error = Dataset::open(&DatasetConfig::new(dir.path())).unwrap_err();
    assert!(matches!(error, DatasetError::Outside { line: Some(2), .. }), "{error}");
    let config = DatasetConfig { follow_outside_links: true, ..DatasetConfig::new(dir.path()) };
    assert_eq!(Dataset::open(&config).unwrap().len(), 1);
}

#[test]
fn grocery_lists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/grocery");
    if !root.exists() {
        return;
    }
    for (list, rows, classes) in [("train.txt", 2640, 81), ("val.txt", 296, 60)] {
        let set = Dataset::open(&DatasetConfig::new(root.join(list))).unwrap();
        assert_eq!((set.len(), set.classes().len()), (rows, classes), "{list}");
        assert!(set.samples.iter().all(|s| s.super_class.is_some() && set.full_path(s).is_file()));
    }
    let folder = Dataset::open(&DatasetConfig::new(root.join("train"))).unwrap();
    assert_eq!((folder.len(), folder.classes().len()), (2640, 81));
    assert_eq!(folder.samples[0].super_class.as_deref(), Some("Fruit/Apple"));
}

proptest! {
    /// Whatever the values, what the `csv` crate writes is read back (the dash keeps `p1` + `0` apart from `p10`).
    #[test]
    fn written_tables_are_read_back(values in prop::collection::vec(("[a-z0-9 ,\"éß]{0,12}", "[a-zA-Z ,;\"ü]{0,9}"), 1..20)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["path", "class"]).unwrap();
        for (i, (stem, class)) in values.iter().enumerate() {
            writer.write_record([&format!("p{i}-{stem}.jpg"), &format!("c{class}z")]).unwrap();
        }
        let set = read_bytes(&writer.into_inner().unwrap(), TableConfig { delimiter: Some(','), ..TableConfig::default() }).unwrap();
        for (i, (stem, class)) in values.iter().enumerate() {
            prop_assert_eq!(set.samples[i].key(), format!("p{i}-{stem}.jpg"));
            let expected = format!("c{class}z");
            prop_assert_eq!(set.samples[i].class.as_deref(), Some(expected.as_str()));
        }
    }

    #[test]
    fn garbage_never_panics(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_bytes(&content, TableConfig::default());
    }
}
