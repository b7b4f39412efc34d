//! The server over loopback: every address, what is refused, what is kept.

use semblance_index::Index;
use serde_json::{Value, json};

use crate::serving::Serving;
use crate::util::{Dir, shop};

pub(crate) const SHOP: &str = "/v1/indexes/shop";

/// A photograph of the catalogue, and its key.
pub(crate) fn a_photo(dir: &Dir) -> (String, Vec<u8>) {
    let index = Index::open(dir.path("index-data/shop")).expect("the index");
    let key = index.items().expect("items")[5].key.clone();
    let bytes = std::fs::read(dir.path("cat").join(&key)).expect("the photograph");
    (key, bytes)
}

fn keys(answer: &Value) -> Vec<String> {
    let list = answer["hits"].as_array().or(answer["items"].as_array()).expect("a list");
    list.iter().map(|item| item["key"].as_str().expect("a key").to_owned()).collect()
}

#[test]
fn photographs_are_whitened_where_the_index_is() {
    let dir = shop();
    dir.run(["index", "derive", "--index", "shop", "--name", "whitened", "--whiten", "16"]).exits(0);
    let (key, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &["--index", "whitened"]);
    for index in ["shop", "whitened"] {
        let path = format!("/v1/indexes/{index}/search/photo");
        let found = server.form("POST", &path, Some(&photo), &[("k", "3")]).is(200).json();
        let first = &found["hits"][0];
        assert_eq!(first["key"].as_str(), Some(&*key), "{index}: {found}");
        assert!(first["score"].as_f64().is_some_and(|score| score > 0.999), "{index}: {found}");
    }
}

#[test]
fn searches_by_photo_item_and_vector() {
    let dir = shop();
    let (key, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &[]);

    let form =
        server.form("POST", &format!("{SHOP}/search/photo"), Some(&photo), &[("k", "5")]).is(200).json();
    assert_eq!(
        (form["hits"][0]["key"].as_str(), form["hits"].as_array().map(Vec::len)),
        (Some(&*key), Some(5))
    );
    assert_eq!(form["photo"], json!({ "width": 48, "height": 48 }));
    let raw = server.send(
        "POST",
        &format!("{SHOP}/search/photo?k=5"),
        &[("content-type", "image/jpeg")],
        Some(&photo),
    );
    assert_eq!(keys(&raw.is(200).json()), keys(&form));
    let cropped = server.form("POST", &format!("{SHOP}/search/photo"), Some(&photo), &[("box", "0,0,12,12")]);
    assert_ne!(cropped.is(200).json()["hits"][0]["score"], form["hits"][0]["score"]);

    let id = form["hits"][0]["id"].as_u64().expect("an id");
    let similar =
        server.json("POST", &format!("{SHOP}/search"), &json!({ "id": id, "k": 48 })).is(200).json();
    assert_eq!(keys(&similar).len(), 47, "all but itself");
    assert!(!keys(&similar).contains(&key));
    let by_key =
        server.json("POST", &format!("{SHOP}/search"), &json!({ "key": key, "k": 48 })).is(200).json();
    assert_eq!(keys(&by_key), keys(&similar));

    let index = Index::open(dir.path("index-data/shop")).expect("the index");
    let vector: Vec<f32> = index.vector(id).expect("a vector").iter().map(|v| v * 3.0).collect();
    let by_vector =
        server.json("POST", &format!("{SHOP}/search"), &json!({ "vector": vector })).is(200).json();
    assert_eq!(by_vector["hits"][0]["key"], key);
    let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
    let octets = [("content-type", "application/octet-stream")];
    let binary =
        server.send("POST", &format!("{SHOP}/search?k=10&exact=true"), &octets, Some(&bytes)).is(200).json();
    assert_eq!(keys(&binary), keys(&by_vector));

    let class = form["hits"][0]["class"].clone();
    let filter = json!({ "eq": { "field": "class", "value": class } });
    let filtered =
        server.json("POST", &format!("{SHOP}/search"), &json!({ "id": id, "k": 48, "filter": filter }));
    let filtered = filtered.is(200).json();
    assert_eq!(keys(&filtered).len(), 3, "the other photographs of the product");
    let grouped =
        server.json("POST", &format!("{SHOP}/search"), &json!({ "id": id, "k": 12, "group_by": "class" }));
    let grouped = grouped.is(200).json();
    let hits = grouped["hits"].as_array().expect("hits");
    let classes: std::collections::BTreeSet<_> = hits.iter().map(|hit| hit["class"].as_str()).collect();
    assert_eq!((hits.len(), classes.len()), (12, 12));
    let none =
        server.json("POST", &format!("{SHOP}/search"), &json!({ "id": id, "min_score": 1.0 })).is(200).json();
    assert_eq!(none["hits"], json!([]));
}

#[test]
fn better_answers_are_those_of_the_command_line() {
    let dir = shop();
    let keys_of = |index: &str| Index::open(dir.path(index)).expect("the index").items().expect("items");
    let items = keys_of("index-data/shop");
    let paths: Vec<String> = items[..2].iter().map(|item| format!("cat/{}", item.key)).collect();
    let photos: Vec<Vec<u8>> =
        paths.iter().map(|path| std::fs::read(dir.path(path)).expect("a photograph")).collect();
    let photos: Vec<&[u8]> = photos.iter().map(Vec::as_slice).collect();
    let server = Serving::start(&dir, &[]);
    let by_photo = format!("{SHOP}/search/photo");
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 5] = [
        (&[], &[]),
        (&["--expand", "3"], &[("expand", "3")]),
        (&["--rerank", "20"], &[("rerank", "20")]),
        (&["--views", "flip", "--box", "0.1,0.1,0.8,0.8"], &[("views", "flip"), ("box", "0.1,0.1,0.8,0.8")]),
        (&["--one-per-class"], &[("group_by", "class")]),
    ];
    for (arguments, fields) in cases {
        let told = [&["search", "--index", "shop", "--json", "--together", &paths[0], &paths[1]], arguments];
        let told = dir.run(told.concat()).exits(0).json();
        let served = server.form_of("POST", &by_photo, &photos, fields).is(200).json();
        assert_eq!(keys(&served), keys(&told["results"][0]), "{arguments:?}");
    }
    let by_item = json!({ "key": items[0].key, "k": 5, "expand": 3, "rerank": 20 });
    let served = server.json("POST", &format!("{SHOP}/search"), &by_item).is(200).json();
    let told = ["search", "--index", "shop", "--json", "--item", &items[0].key, "-k", "5", "--expand", "3"];
    let told = dir.run(told.into_iter().chain(["--rerank", "20"])).exits(0).json();
    assert_eq!(keys(&served), keys(&told["results"][0]));
    server.form_of("POST", &by_photo, &[photos[0]; 17], &[]).fails(400, "bad_request");
    server.form_of("POST", &format!("{SHOP}/items"), &photos, &[]).fails(400, "bad_request");
    server
        .json("POST", &format!("{SHOP}/search"), &json!({ "id": 1, "rerank": 0 }))
        .fails(400, "bad_request");
}

#[test]
fn shows_indexes_items_and_pictures() {
    let dir = shop();
    let (key, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &[]);
    let all = server.get("/v1/indexes").is(200).json();
    assert_eq!((&all["indexes"][0]["name"], &all["indexes"][0]["items"]), (&json!("shop"), &json!(48)));
    assert_eq!(server.get(SHOP).is(200).json()["writable"], true);
    let facets = server.get(&format!("{SHOP}/facets")).is(200).json();
    assert_eq!((&facets["items"], facets["classes"].as_array().map(Vec::len)), (&json!(48), Some(12)));

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = server.get(&format!("{SHOP}/items?limit=20{after}")).is(200).json();
        seen.extend(keys(&page));
        let Some(next) = page["next"].as_u64() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen.len(), 48);
    let one = server.get(&format!("{SHOP}/items?key={}", key.replace('/', "%2F"))).is(200).json();
    assert_eq!((keys(&one), &one["total"]), (vec![key.clone()], &json!(1)));
    assert_eq!(server.get(&format!("{SHOP}/items?key=none")).is(200).json()["total"], 0);
    let class = one["items"][0]["class"].clone();
    let filter = json!({ "eq": { "field": "class", "value": class } }).to_string();
    let filter: String = filter.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let page = server.get(&format!("{SHOP}/items?limit=1&filter={filter}")).is(200).json();
    assert_eq!((keys(&page).len(), &page["total"]), (1, &json!(4)), "of all pages");
    let item = &one["items"][0];
    assert_eq!(server.get(&format!("{SHOP}/items/{}", item["id"])).is(200).json(), *item);

    let original = server.get(item["photo"].as_str().expect("an address")).is(200);
    assert_eq!((original.header("content-type"), &original.body), ("image/jpeg", &photo));
    let small = server.get(&format!("{}?size=100", item["thumbnail"].as_str().expect("an address"))).is(200);
    let tag = small.header("etag").to_owned();
    let again = server.send("GET", item["thumbnail"].as_str().expect("it"), &[("if-none-match", &tag)], None);
    assert_eq!(
        (small.header("content-type"), again.status),
        ("image/jpeg", 200),
        "another size has another tag"
    );
    let path = format!("{}?size=100", item["thumbnail"].as_str().expect("it"));
    assert!(server.send("GET", &path, &[("if-none-match", &tag)], None).is(304).body.is_empty());

    let told = server.get(&format!("{SHOP}/report")).fails(404, "no_report");
    let message = told["message"].as_str().expect("words");
    assert!(message.contains("`semblance eval --index NAME --report runs/reports/NAME`"), "{message}");
    dir.write("runs/reports/shop/report.html", "<!doctype html><title>r</title>");
    let report = server.get(&format!("{SHOP}/report")).is(200);
    assert!(report.header("content-security-policy").contains("sandbox"), "{:?}", report.headers);
    assert_eq!(server.get(SHOP).json()["report"], true);
}

#[test]
fn tells_how_it_is_and_what_it_can() {
    let dir = shop();
    let server = Serving::start(&dir, &["--log", "json"]);
    server.get("/healthz").is(200);
    server.get("/readyz").is(200);
    let page = server.send("GET", "/", &[("x-request-id", "from-the-client")], None).is(200);
    assert!(
        page.header("content-security-policy").contains("script-src 'self'")
            && page.text().contains("Semblance")
    );
    assert_eq!(page.header("x-request-id"), "from-the-client");
    server.get("/web/main.js").is(200);
    server.get("/docs/").is(200);
    let document = server.get("/openapi.json").is(200).json();
    for path in [
        "/v1/indexes/{index}/search/photo",
        "/v1/indexes/{index}/items/{id}/thumbnail",
        "/healthz",
        "/metrics",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is not described");
    }
    server.get("/v1/indexes/nowhere").fails(404, "unknown_index");
    let metrics = server.get("/metrics").is(200).text();
    for line in [
        "semblance_index_items{index=\"shop\"} 48",
        "semblance_http_requests_total{method=\"GET\",route=\"/v1/indexes/{index}\",status=\"404\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let log = server.log();
    let line = log.lines().find(|line| line.contains("from-the-client")).expect("a line about the request");
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["status"], &line["span"]["path"]), (&json!(200), &json!("/")), "{line}");
}

#[test]
fn refuses_what_means_nothing() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &["--max-upload", "1", "--max-pixels", "1"]);
    let search = format!("{SHOP}/search");
    for (body, code) in [
        (json!({}), "bad_request"),
        (json!({ "id": 1, "key": "a" }), "bad_request"),
        (json!({ "id": 1, "k": 0 }), "bad_request"),
        (json!({ "id": 1, "k": 1_000_000 }), "bad_request"),
        (json!({ "id": 1, "colour": "red" }), "bad_request"),
        (json!({ "vector": [1.0, 2.0] }), "wrong_dimension"),
        (json!({ "vector": [0.0] }), "wrong_dimension"),
        (json!({ "id": 1, "filter": { "range": { "field": "price" } } }), "bad_filter"),
    ] {
        server.json("POST", &search, &body).fails(400, code);
    }
    server.json("POST", &search, &json!({ "id": 999_999 })).fails(404, "unknown_item");
    server.json("POST", &search, &json!({ "key": "no such" })).fails(404, "unknown_item");
    server
        .send("POST", &search, &[("content-type", "application/json")], Some(b"{"))
        .fails(400, "bad_request");
    server
        .send("POST", &search, &[("content-type", "text/plain")], Some(b"x"))
        .fails(415, "unsupported_media_type");

    let by_photo = format!("{SHOP}/search/photo");
    server.form("POST", &by_photo, Some(b"this is a text"), &[]).fails(415, "unsupported_media_type");
    server.form("POST", &by_photo, Some(&photo[..photo.len() / 2]), &[]).fails(422, "bad_photo");
    server.form("POST", &by_photo, Some(b""), &[]).fails(422, "bad_photo");
    server.form("POST", &by_photo, None, &[]).fails(400, "bad_request");
    server.form("POST", &by_photo, Some(&photo), &[("box", "90,90,10,10")]).fails(400, "bad_request");
    server.form("POST", &by_photo, Some(&photo), &[("colour", "red")]).fails(400, "bad_request");
    server.form("POST", &by_photo, Some(&vec![0; 2 << 20]), &[]).fails(413, "too_large");
    let mut wide = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(2000, 1000).write_to(&mut wide, image::ImageFormat::Png).expect("a PNG");
    server.form("POST", &by_photo, Some(wide.get_ref()), &[]).fails(413, "too_large");

    server.get(&format!("{SHOP}/items/abc")).fails(400, "bad_request");
    server.get(&format!("{SHOP}/items?limit=0")).fails(400, "bad_request");
    server.get(&format!("{SHOP}/items/999999/photo")).fails(404, "unknown_item");
    server.get("/../../etc/passwd").fails(404, "unknown_address");
    server.send("PATCH", SHOP, &[], None).fails(405, "unknown_method");
}

#[test]
fn adds_replaces_and_deletes_for_good() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &[]);
    let items = format!("{SHOP}/items");
    let described = |text: &Value| vec![("item", text.to_string())];
    let put = |method: &str, photo: Option<&[u8]>, text: &Value| {
        let fields = described(text);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        server.form(method, &items, photo, &fields)
    };
    let hat = json!({ "key": "new/hat", "class": "hat", "metadata": { "price": 12.5 } });
    let added = put("POST", Some(&photo), &hat).is(201).json();
    assert_eq!(
        (&added["key"], &added["uploaded"], &added["metadata"]),
        (&hat["key"], &json!(true), &hat["metadata"])
    );
    assert_eq!(added.get("warnings"), None);
    put("POST", Some(&photo), &hat).fails(409, "key_taken");
    let shadowed = json!({ "key": "shadowed", "class": "hat", "metadata": { "class": "OTHER" } });
    let added_shadowed = put("POST", Some(&photo), &shadowed).is(201).json();
    assert!(added_shadowed["warnings"][0].as_str().is_some_and(|text| text.contains("metadata.class")));
    server.delete(&format!("{items}/{}", added_shadowed["id"])).is(200);
    let unnamed = put("POST", Some(&photo), &json!({})).is(201).json();
    assert!(unnamed["key"].as_str().is_some_and(|key| key.starts_with("uploads/")), "{unnamed}");

    let found =
        server.form("POST", &format!("{SHOP}/search/photo"), Some(&photo), &[("k", "3")]).is(200).json();
    assert!(keys(&found).contains(&"new/hat".to_owned()), "searchable at once: {found}");
    let picture = server.get(added["photo"].as_str().expect("an address")).is(200);
    assert_eq!(picture.body, photo);

    let described = json!({ "key": "new/hat", "class": "cap", "metadata": {} });
    let changed = server.json("PUT", &items, &described).is(200).json();
    assert_eq!((&changed["id"], &changed["class"]), (&added["id"], &json!("cap")));
    assert_eq!(
        server.get(changed["photo"].as_str().expect("it")).is(200).body,
        photo,
        "it keeps its picture"
    );
    let other = std::fs::read(dir.path("cat").join(a_key(&dir, 9))).expect("a photograph");
    put("PUT", Some(&other), &described).is(200);
    assert_eq!(server.get(changed["photo"].as_str().expect("it")).is(200).body, other);
    server.json("PUT", &items, &json!({ "key": "never seen" })).fails(404, "unknown_item");
    server.json("PUT", &items, &json!({ "class": "no key" })).fails(400, "bad_request");
    put("POST", Some(&photo), &json!({ "metadata": { "semblance:photo": "x" } })).fails(400, "bad_request");

    server.delete(&format!("{items}/{}", unnamed["id"])).is(200);
    server.delete(&format!("{items}/{}", unnamed["id"])).fails(404, "unknown_item");
    server.delete(&format!("{items}?key=cat")).fails(404, "unknown_item");
    let facets = server.get(&format!("{SHOP}/facets")).is(200).json();
    assert!(facets["classes"].as_array().is_some_and(|all| all.iter().any(|class| class["value"] == "cap")));

    #[cfg(unix)]
    assert_eq!(server.stop("-TERM"), Some(0));
    #[cfg(not(unix))]
    drop(server);
    let index = Index::open(dir.path("index-data/shop")).expect("the index");
    assert_eq!(index.len(), 49, "published when the server stopped");
    let uploads = std::fs::read_dir(dir.path("index-data/shop/uploads")).expect("a folder").count();
    assert_eq!(uploads, 1, "pictures nobody needs are gone");
    dir.run(["index", "verify", "--index", "shop"]).exits(0);
}

pub(crate) fn a_key(dir: &Dir, at: usize) -> String {
    Index::open(dir.path("index-data/shop")).expect("the index").items().expect("items")[at].key.clone()
}
