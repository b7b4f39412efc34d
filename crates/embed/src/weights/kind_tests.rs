//! Tests of the descriptions of files without weights.

use super::*;

/// A zip archive of empty files without compression, with the names given.
pub(crate) fn zip_of(names: &[&str]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for name in names {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn whatever_is_no_weights_is_named_with_what_to_do() {
    let tar = [vec![b'a'; 257], b"ustar\x0000".to_vec(), vec![0; 512]].concat();
    let cut = zip_of(&["archive/data.pkl"])[..40].to_vec();
    let svm = b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x0bsklearn.svm\x94\x8c\x03SVC\x94\x93\x94)\x81\x94.";
    let cases: &[(&[u8], &[&str])] = &[
        (b"", &["empty", "again"]),
        (&[0; 100], &["zeros", "again"]),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 14\n",
            &["Git LFS pointer", "fetch the file with Git LFS"],
        ),
        (b"/annex/objects/SHA256E-s14--00.pth\n", &["git-annex pointer", "fetch the file with git-annex"]),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", &["web page", "Sign in", "download"]),
        (b"\xef\xbb\xbf\r\n <HTML><body>", &["web page"]),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", &["XML", "AccessDenied"]),
        (br#"{"error":"Repository not found"}"#, &["answer of a server", "Repository not found"]),
        (br#"{"detail":{"code":401}}"#, &["401"]),
        (br#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#, &["2 files", "m-1.safetensors"]),
        (br#"{"architecture":"resnet50"}"#, &["configuration"]),
        (b"Entry not found", &["text", "Entry not found"]),
        (b"\x1f\x8b\x08\0\0\0", &["gzip", "unpack"]),
        (b"BZh91AY", &["bzip2"]),
        (b"\x28\xb5\x2f\xfd\x04", &["Zstandard"]),
        (&tar, &["tar archive", "unpack"]),
        (b"\x89HDF\r\n\x1a\n\0\0", &["HDF5", "Keras"]),
        (b"\x1c\0\0\0TFL3\0\0", &["TensorFlow Lite"]),
        (b"GGUF\x03\0\0\0", &["GGUF"]),
        (b"\x93NUMPY\x01\0v\0{'descr'", &["NumPy array"]),
        (&cut, &["zip archive", "cut short"]),
        (&zip_of(&["weights/model.pth"]), &["zip archive", "weights/model.pth", "unpack"]),
        (&zip_of(&["arr_0.npy"]), &[".npz"]),
        (&zip_of(&["config.json", "model.weights.h5"]), &["Keras"]),
        (&zip_of(&["word/document.xml"]), &["without weights", "document.xml"]),
        (svm, &["pickle", "sklearn.svm.SVC", "torch.save"]),
        (b"\x80\x04\x95", &["damaged Python pickle"]),
        (b"\x08\x08\x12\x07pytorch\x1a\x032.1", &["ONNX"]),
        (b"\x08\x01\x12\xff\x01", &["TensorFlow"]),
        (b"\xff\xd8\xff\xe0", &["JPEG"]),
    ];
    for (bytes, words) in cases {
        let said = describe(bytes).unwrap_or_else(|| panic!("{words:?} is not known"));
        for word in *words {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
        assert!(said.starts_with("it "), "{said}");
    }
}

#[test]
fn weights_and_the_unknown_are_not_taken_for_something_else() {
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    // A header whose length is the bytes of another format's magic number.
    let padded = [&b"BZh\0\0\0\0\0{\"a\""[..], &[b' '; 50]].concat();
    for bytes in [&safetensors[..], &padded, &zip_of(&["archive/data.pkl"]), b"\x01\x02\x03\x04\xfe\xff"] {
        assert_eq!(describe(bytes), None, "{bytes:?}");
    }
}
