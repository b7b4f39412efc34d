//! Tests of the pickle reader, on what Python's `pickle` writes and on what it never would.

use super::*;

/// `OrderedDict([('a', 1), ('b', (2, 3.5, None, True, -7, 2**70)), ('c', ['x', {}])])` by `pickle.dumps`, in protocols
/// 0, 1, 2 and 4.
const WRITTEN: [&[u8]; 4] = [
    b"ccollections\nOrderedDict\np0\n(tRp1\nVa\np2\nI1\nsVb\np3\n(I2\nF3.5\nNI01\nI-7\nL1180591620717411303424L\ntp4\ns\
      Vc\np5\n(lp6\nVx\np7\na(dp8\nas.",
    b"ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02K\x01X\x01\x00\x00\x00bq\x03(K\x02G@\x0c\x00\x00\
      \x00\x00\x00\x00NI01\nJ\xf9\xff\xff\xffL1180591620717411303424L\ntq\x04X\x01\x00\x00\x00cq\x05]q\x06(X\x01\x00\x00\
      \x00xq\x07}q\x08eu.",
    b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02K\x01X\x01\x00\x00\x00bq\x03(K\x02G@\x0c\
      \x00\x00\x00\x00\x00\x00N\x88J\xf9\xff\xff\xff\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@tq\x04X\x01\x00\x00\x00cq\
      \x05]q\x06(X\x01\x00\x00\x00xq\x07}q\x08eu.",
    b"\x80\x04\x95\\\x00\x00\x00\x00\x00\x00\x00\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94(\x8c\x01a\
      \x94K\x01\x8c\x01b\x94(K\x02G@\x0c\x00\x00\x00\x00\x00\x00N\x88J\xf9\xff\xff\xff\x8a\t\x00\x00\x00\x00\x00\x00\x00\
      \x00@t\x94\x8c\x01c\x94]\x94(\x8c\x01x\x94}\x94eu.",
];

#[test]
fn every_protocol_gives_the_same_values() {
    for bytes in WRITTEN {
        let pickle = Pickle::read(&[bytes, b"and more"].concat()).unwrap();
        assert_eq!(pickle.length, bytes.len());
        let entry = |key| pickle.entry(pickle.root, key).unwrap();
        assert_eq!(pickle.dict(pickle.root).unwrap().len(), 3);
        assert_eq!(pickle.index(entry("a")), Some(1));
        let values = pickle.sequence(entry("b")).unwrap().iter().map(|at| pickle.get(*at));
        let wanted = [
            Value::Int(2),
            Value::Float(3.5),
            Value::None,
            Value::Bool(true),
            Value::Int(-7),
            Value::Int(1 << 70),
        ];
        assert_eq!(values.collect::<Vec<_>>(), wanted.iter().collect::<Vec<_>>());
        let last = pickle.sequence(entry("c")).unwrap();
        assert_eq!((pickle.text(last[0]), pickle.dict(last[1])), (Some("x"), Some(&[][..])));
    }
}

#[test]
fn shared_values_stay_shared_and_python_2_dictionaries_have_their_pairs() {
    // A dictionary that is put into a list, remembered, and filled afterwards.
    let pickle = Pickle::read(b"]q\x00}q\x01ah\x01K\x05K\x06s0.").unwrap();
    let dict = pickle.sequence(pickle.root).unwrap()[0];
    assert_eq!(pickle.dict(dict).unwrap().len(), 1);
    // OrderedDict([['a', 1]]) by Python 2.
    let pickle = Pickle::read(b"ccollections\nOrderedDict\n(](](U\x01aK\x01eetR.").unwrap();
    assert_eq!(pickle.index(pickle.entry(pickle.root, "a").unwrap()), Some(1));
}

#[test]
fn calls_are_kept_and_not_executed() {
    let pickle = Pickle::read(b"cos\nsystem\n(X\x04\x00\x00\x00truetR}X\x01\x00\x00\x00aK\x01sb.").unwrap();
    let (call, callee) = pickle.call(pickle.root).unwrap();
    assert_eq!(callee, ("os", "system"));
    assert_eq!(pickle.text(pickle.sequence(call.args).unwrap()[0]), Some("true"));
    assert_eq!(pickle.index(pickle.entry(call.state.unwrap(), "a").unwrap()), Some(1));
}

#[test]
fn hostile_pickles_are_errors_and_never_an_end_of_the_process() {
    // Lists in lists in lists, dropped on a small stack too.
    let deep = [vec![b']'; 300_000], vec![b'a'; 299_999], vec![b'.']].concat();
    let small = std::thread::Builder::new().stack_size(64 << 10);
    small.spawn(move || drop(Pickle::read(&deep).unwrap())).unwrap().join().unwrap();
    // A list that holds itself, and lists that each hold the one before twice.
    assert!(Pickle::read(b"]q\x00h\x00a.").is_ok());
    let doubling = [&b"]q\x00"[..], &b"](h\x00h\x00eq\x00".repeat(100), b"."].concat();
    assert!(Pickle::read(&doubling).is_ok());
    let endless = [vec![b'N'; 1 << 23], vec![b'.']].concat();
    for (bytes, word) in [
        (&b""[..], "ends too early"),
        (b"\x80", "ends too early"),
        (b"X\xff\xff\xff\xffabc", "ends too early"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "ends too early"),
        (b"cos\nsystem", "ends too early"),
        (b".", "more values than it made"),
        (b"K\x01t.", "mark"),
        (b"(R.", "more values than it made"),
        (b"h\x07.", "value 7 is not there"),
        (b"K\x01K\x02a.", "no list"),
        (b"}(K\x01u.", "without a value"),
        (b"Iseven\n.", "seven"),
        (b"\x82\x01.", "0x82"),
        (b"\xff", "0xff"),
        (b"K\x01K\x02\x93.", "no text"),
        (b"(o.", "calls nothing"),
        (&endless, "values"),
    ] {
        let error = Pickle::read(bytes).unwrap_err();
        assert!(error.contains(word) && error.contains("byte"), "{error} does not say {word}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    #[test]
    fn any_instructions_end_in_a_value_or_an_error(
        program in proptest::collection::vec(proptest::sample::select(
            &b"(.012NIJKMLFGSUVXaesu)]}tldcPQRiobpqrghj\x00\x01\n\x80\x81\x85\x86\x87\x8a\x8c\x8f\x90\x91\x93\x94"[..]
        ), 0..60),
    ) {
        let _ = Pickle::read(&program);
    }
}
