//! Tests of PyTorch's files, written here instruction by instruction.

use std::io::{Cursor, Write};

use super::*;

/// A storage's key, the class of its numbers, and its bytes.
type Storage<'a> = (&'a str, &'a str, Vec<u8>);

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(number: usize) -> Vec<u8> {
    [b"J", &(number as i32).to_le_bytes()[..]].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn ints(numbers: &[usize]) -> Vec<u8> {
    tuple(&numbers.iter().map(|number| int(*number)).collect::<Vec<_>>())
}

/// A dictionary with these entries.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(key, value)| [text(key), value.clone()]);
    [b"ccollections\nOrderedDict\n)R(", &entries.collect::<Vec<_>>().concat()[..], b"u"].concat()
}

fn storage(key: &str, class: &str) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n").into_bytes();
    [tuple(&[text("storage"), class, text(key), text("cuda:0"), int(1)]), b"Q".to_vec()].concat()
}

/// A tensor: key and class of its storage, offset, shape, strides.
fn tensor(key: &str, class: &str, offset: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let args = [storage(key, class), int(offset), ints(shape), ints(strides), b"\x89".to_vec(), dict(&[])];
    [b"ctorch._utils\n_rebuild_tensor_v2\n", &tuple(&args)[..], b"R"].concat()
}

fn pickled(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

fn archive(value: &[u8], storages: &[Storage<'_>]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let plain = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut add = |name: String, bytes: &[u8]| {
        zip.start_file(name, plain).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("net/data.pkl".to_owned(), &pickled(value));
    storages.iter().for_each(|(key, _, bytes)| add(format!("net/data/{key}"), bytes));
    zip.finish().unwrap().into_inner()
}

fn stream(value: &[u8], storages: &[Storage<'_>]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    file.extend(pickled(&[b"}", &text("little_endian")[..], b"\x88s"].concat()));
    file.extend(pickled(value));
    let keys = storages.iter().map(|(key, ..)| text(key)).collect::<Vec<_>>().concat();
    file.extend(pickled(&[b"](", &keys[..], b"e"].concat()));
    for (_, class, bytes) in storages {
        let width = if *class == "FloatStorage" { 4 } else { 8 };
        file.extend((bytes.len() as u64 / width).to_le_bytes());
        file.extend(bytes);
    }
    file
}

fn floats(numbers: std::ops::Range<u8>) -> Vec<u8> {
    numbers.flat_map(|number| f32::from(number).to_le_bytes()).collect()
}

fn values(contents: &Contents, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = &contents.tensors[name];
    (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1().unwrap())
}

const FLOAT: &str = "FloatStorage";

#[test]
fn both_formats_give_the_same_tensors_whatever_their_strides() {
    let network = dict(&[
        ("last", tensor("0", FLOAT, 0, &[1, 2, 2, 2], &[8, 1, 4, 2])),
        ("turned", tensor("0", FLOAT, 2, &[2, 3], &[1, 2])),
        ("view", tensor("0", FLOAT, 3, &[2], &[1])),
        ("scalar", tensor("0", FLOAT, 7, &[], &[])),
        ("none", tensor("0", FLOAT, 0, &[0], &[1])),
        ("spread", tensor("0", FLOAT, 5, &[2, 2], &[0, 1])),
        ("count", tensor("1", "LongStorage", 0, &[1], &[1])),
        ("double", tensor("2", "DoubleStorage", 0, &[1], &[1])),
        ("epoch", int(3)),
    ]);
    let storages = [
        ("0", FLOAT, floats(0..8)),
        ("1", "LongStorage", 9i64.to_le_bytes().to_vec()),
        ("2", "DoubleStorage", 0.5f64.to_le_bytes().to_vec()),
    ];
    let (new, old) = (archive(&network, &storages), stream(&network, &storages));
    assert!(is_stream(&old) && !is_stream(&new) && !is_stream(b"\x80\x02K\x01."));
    for contents in [read_archive(&new).unwrap(), read_stream(&old).unwrap()] {
        let value = |name| values(&contents, name);
        assert_eq!(value("last"), (vec![1, 2, 2, 2], vec![0., 2., 4., 6., 1., 3., 5., 7.]));
        assert_eq!(value("turned"), (vec![2, 3], vec![2., 4., 6., 3., 5., 7.]));
        assert_eq!(value("view").1, [3., 4.]);
        assert_eq!(value("scalar"), (vec![], vec![7.]));
        assert_eq!(value("none"), (vec![0], vec![]));
        assert_eq!(value("spread").1, [5., 6., 5., 6.]);
        assert_eq!(value("double").1, [0.5]);
        assert_eq!(contents.tensors["count"].to_vec1::<i64>().unwrap(), [9]);
        assert_eq!((contents.tensors.len(), contents.unreadable.len()), (8, 0));
    }
}

#[test]
fn the_network_is_found_wherever_a_checkpoint_keeps_it() {
    let weight = tensor("0", FLOAT, 0, &[2], &[1]);
    let network = dict(&[("fc.weight", weight.clone()), ("fc.bias", weight.clone())]);
    let parameter = [
        b"ctorch._utils\n_rebuild_parameter\n",
        &tuple(&[weight.clone(), b"\x88".to_vec(), dict(&[])])[..],
        b"R",
    ];
    let object = |class: &str, state: Vec<u8>| {
        [format!("c{class}\n").as_bytes(), &b")\x81"[..], &state, b"b"].concat()
    };
    let layer =
        |name| object("torch.nn\nLinear", dict(&[("_parameters", dict(&[(name, parameter.concat())]))]));
    let module =
        object("shop\nNet", dict(&[("_modules", dict(&[("fc", layer("weight"))])), ("_buffers", dict(&[]))]));
    let scripted = object(
        "__torch__.shop\nNet",
        dict(&[
            ("training", b"\x89".to_vec()),
            ("fc", object("__torch__.torch.nn\nLinear", dict(&[("weight", weight.clone())]))),
        ]),
    );
    for (what, value) in [
        ("alone", network.clone()),
        ("beside a tensor", dict(&[("mean", weight.clone()), ("state_dict", network.clone())])),
        ("with its average", dict(&[("model_ema", network.clone()), ("model", network.clone())])),
        ("under any one name", dict(&[("epoch", int(1)), ("net_g", network.clone())])),
        ("deeper", dict(&[("state", dict(&[("model", network)]))])),
        ("a module saved whole", module),
        ("a scripted module", scripted),
    ] {
        let contents = read_archive(&archive(&value, &[("0", FLOAT, floats(0..2))]));
        let contents = contents.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(values(&contents, "fc.weight"), (vec![2], vec![0., 1.]), "{what}");
    }
    let named = dict(&[("arch", text("resnet18")), ("state_dict", dict(&[("a", weight.clone())]))]);
    let contents = read_archive(&archive(&named, &[("0", FLOAT, floats(0..2))])).unwrap();
    assert_eq!(contents.arch.as_deref(), Some("resnet18"));
    let two = dict(&[("teacher", dict(&[("a", weight.clone())])), ("student", dict(&[("a", weight)]))]);
    let error = read_archive(&archive(&two, &[("0", FLOAT, floats(0..2))])).unwrap_err();
    assert!(
        error.contains("teacher") && error.contains("student") && error.contains("torch.save"),
        "{error}"
    );
    let error = read_archive(&archive(&dict(&[("epoch", int(1))]), &[])).unwrap_err();
    assert!(error.contains("no tensors by name"), "{error}");
}

#[test]
fn what_is_not_read_is_named() {
    let plain = tensor("0", FLOAT, 0, &[2], &[1]);
    let quantised =
        [b"ctorch._utils\n_rebuild_qtensor\n", &tuple(&[storage("0", "QInt8Storage")])[..], b"R"].concat();
    let numpy = b"cnumpy.core.multiarray\n_reconstruct\n)R".to_vec();
    let complex = tensor("0", "ComplexFloatStorage", 0, &[1], &[1]);
    let odd = dict(&[("q", quantised.clone()), ("n", numpy.clone()), ("c", complex)]);
    let error = read_archive(&archive(&odd, &[])).unwrap_err();
    assert!(error.contains("none of its 3 tensors") && error.contains("ComplexFloatStorage"), "{error}");
    let mixed = dict(&[("q", quantised), ("n", numpy), ("plain", plain)]);
    let contents = read_archive(&archive(&mixed, &[("0", FLOAT, floats(0..2))])).unwrap();
    assert_eq!(contents.tensors.len(), 1);
    assert!(contents.unreadable["q"].contains("qtensor") && contents.unreadable["n"].contains("NumPy"));
}

#[test]
fn hostile_and_damaged_files_are_errors() {
    let refused = |value: &[u8], storages: &[Storage<'_>], words: &[&str]| {
        for error in [read_archive(&archive(value, storages)), read_stream(&stream(value, storages))] {
            let error = error.unwrap_err();
            assert!(words.iter().any(|word| error.contains(word)), "none of {words:?} is in: {error}");
        }
    };
    let eight = [("0", FLOAT, floats(0..8))];
    let one = |shape: &[usize], strides: &[usize]| dict(&[("a", tensor("0", FLOAT, 0, shape, strides))]);
    refused(&one(&[9], &[1]), &eight, &["reaches beyond"]);
    refused(&one(&[2, 2], &[1]), &eight, &["dimensions"]);
    refused(&one(&[1 << 30, 1 << 30, 1 << 30], &[0, 0, 0]), &eight, &["reaches beyond"]);
    refused(&one(&[1 << 30, 1 << 30], &[0, 0]), &eight, &["four times"]);
    refused(&one(&[2], &[1]), &[], &["no storage 0", "no net/data/0"]);
    let deep = [vec![b']'; 300_000], vec![b'a'; 299_999]].concat();
    refused(&deep, &[], &["no tensors by name"]);
    // Dictionaries that each hold the one before many times, and modules that hold themselves.
    let layer = [
        b"ccollections\nOrderedDict\n)R(",
        &[text("a"), b"h\0".to_vec(), text("b"), b"h\0".to_vec()].concat()[..],
        b"uq\0",
    ];
    let wide = [b"ccollections\nOrderedDict\n)Rq\0".to_vec(), layer.concat().repeat(40)].concat();
    refused(&wide, &[], &["no tensors by name"]);
    let itself = [
        b"cshop\nNet\n)\x81q\0",
        &dict(&[("_modules", dict(&[("a", b"h\0".to_vec()), ("b", b"h\0".to_vec())]))])[..],
        b"b",
    ];
    refused(&itself.concat(), &[], &["nested", "entries to look at"]);

    let network = one(&[8], &[1]);
    let whole = stream(&network, &eight);
    for length in [20, 60, whole.len() - 40, whole.len() - 1] {
        assert!(read_stream(&whole[..length]).is_err(), "{length}");
    }
    let error = read_stream(&whole[..whole.len() - 1]).unwrap_err();
    assert!(error.contains("storage 0 is cut short"), "{error}");
    let mut flipped = archive(&network, &eight);
    let at = flipped.windows(4).position(|bytes| bytes == 7f32.to_le_bytes()).unwrap();
    flipped[at] ^= 1;
    let error = read_archive(&flipped).unwrap_err();
    assert!(error.contains("damaged"), "{error}");
}
