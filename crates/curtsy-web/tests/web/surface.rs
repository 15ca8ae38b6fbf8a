//! What gin's users expect to find by its name, and no other topic's tests touch.

use crate::{echo, engine};
use curtsy_web::test::Client;
use curtsy_web::{Context, Result};
use http::HeaderName;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
struct Tea {
    name: String,
    cups: u8,
}

fn tea() -> Tea {
    Tea {
        name: "green".into(),
        cups: 2,
    }
}

/// Binds by the format named in the path, whatever the content type says.
async fn named(c: &mut Context) -> Result<String> {
    let format = c.param("format").to_owned();
    let tea: Tea = match format.as_str() {
        "json" => c.should_bind_json().await?,
        "xml" => c.should_bind_xml().await?,
        "yaml" => c.should_bind_yaml().await?,
        "toml" => c.should_bind_toml().await?,
        "msgpack" => c.should_bind_msgpack().await?,
        "form" => c.should_bind_form_post().await?,
        "query" => c.should_bind_query().await?,
        _ => c.should_bind_multipart().await?,
    };
    Ok(format!("{} {}", tea.name, tea.cups))
}

#[tokio::test]
async fn every_format_binds_by_its_name() {
    let mut r = engine();
    r.post("/:format", named);
    let client = Client::new(r);
    let multipart = "--x\r\nContent-Disposition: form-data; name=name\r\n\r\ngreen\r\n\
                     --x\r\nContent-Disposition: form-data; name=cups\r\n\r\n2\r\n--x--\r\n";
    for (path, kind, body) in [
        ("/json", "text/plain", serde_json::to_vec(&tea()).unwrap()),
        (
            "/xml",
            "",
            "<Tea><name>green</name><cups>2</cups></Tea>".into(),
        ),
        ("/yaml", "", "name: green\ncups: 2\n".into()),
        ("/toml", "", "name = \"green\"\ncups = 2\n".into()),
        ("/msgpack", "", rmp_serde::to_vec_named(&tea()).unwrap()),
        (
            "/form",
            "application/x-www-form-urlencoded",
            "name=green&cups=2".into(),
        ),
        ("/query?name=green&cups=2", "", Vec::new()),
        (
            "/multipart",
            "multipart/form-data; boundary=x",
            multipart.into(),
        ),
    ] {
        let request = client.post(path).header("Content-Type", kind).body(body);
        let answer = request.send().await;
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (200, "green 2"),
            "{path}"
        );
        let wrong = client.post(path.split('?').next().unwrap());
        let wrong = wrong
            .header("Content-Type", kind)
            .body("\u{1}")
            .send()
            .await;
        assert_eq!(wrong.status(), 400, "{path}");
    }
}

#[tokio::test]
async fn proxies_may_use_another_header() {
    let mut r = engine();
    r.settings_mut().remote_ip_headers = vec![
        HeaderName::from_static("x-client"),
        HeaderName::from_static("x-real-ip"),
    ];
    r.get("/", async |c: &mut Context| {
        c.client_ip().map(|ip| ip.to_string()).unwrap_or_default()
    });
    let client = Client::new(r);
    for (headers, ip) in [
        (&[("X-Forwarded-For", "1.1.1.1")][..], "192.0.2.1"),
        (
            &[("X-Client", "1.1.1.1"), ("X-Real-IP", "2.2.2.2")],
            "1.1.1.1",
        ),
        (
            &[("X-Client", "nobody"), ("X-Real-IP", "2.2.2.2")],
            "2.2.2.2",
        ),
    ] {
        let mut request = client.get("/");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        assert_eq!(request.send().await.text(), ip, "{headers:?}");
    }
}

#[tokio::test]
async fn the_secure_prefix_stands_before_arrays_only() {
    let mut r = engine();
    r.get("/", async |c: &mut Context| c.secure_json(200, &["a"]));
    r.get("/object", async |c: &mut Context| {
        c.secure_json(200, &tea())
    });
    let mut own = r.clone();
    own.settings_mut().secure_json_prefix = ")]}',\n".into();
    let (client, own) = (Client::new(r), Client::new(own));
    assert_eq!(client.get("/").send().await.text(), "while(1);[\"a\"]");
    assert_eq!(own.get("/").send().await.text(), ")]}',\n[\"a\"]");
    let object = "{\"name\":\"green\",\"cups\":2}";
    assert_eq!(client.get("/object").send().await.text(), object);
}

async fn named_middleware(c: &mut Context) {
    c.next().await;
}

async fn tell_names(c: &mut Context) {
    let names = c.handler_names().len();
    let text = format!("{} of {names} at {}", c.handler_name(), c.full_path());
    c.string(200, text);
}

#[tokio::test]
async fn a_handler_knows_its_name() {
    let mut r = engine();
    r.get("/at/:x", (named_middleware, tell_names));
    let answer = Client::new(r).get("/at/1").send().await.text();
    assert!(answer.ends_with("::tell_names of 2 at /at/:x"), "{answer}");
}

#[tokio::test]
async fn what_is_there_is_told_from_what_is_empty() {
    let mut r = engine();
    r.post("/", async |c: &mut Context| -> Result<String> {
        let query = (c.get_query("a").is_some(), c.get_query("b").is_some());
        let form = (
            c.get_post_form("a").await.is_some(),
            c.get_post_form("b").await.is_some(),
        );
        let raw = c.raw_data().await?;
        let cookies = (c.cookie("a"), c.cookie("b"));
        Ok(format!(
            "{query:?} {form:?} {} {cookies:?} {}",
            raw.len(),
            c.is_websocket()
        ))
    });
    let client = Client::new(r);
    let request = client
        .post("/?a=")
        .form(&[("a", "")])
        .header("Cookie", "x=1; a=%C3%BC");
    assert_eq!(
        request.send().await.text(),
        "(true, false) (true, false) 2 (Some(\"ü\"), None) false"
    );
    let request = client.post("/").header("Connection", "keep-alive, Upgrade");
    let answer = request.header("Upgrade", "WebSocket").send().await.text();
    assert!(answer.ends_with("true"), "{answer}");
}

#[tokio::test]
async fn an_answer_can_be_looked_at_and_taken_back() {
    let mut r = engine();
    r.use_middleware(async |c: &mut Context| {
        c.next().await;
        let seen = format!("{:?} {}", c.response_size(), c.is_written());
        if c.response_bytes() == Some(b"secret") {
            c.clear_answer();
            c.string(403, "no");
        }
        c.header("X-Seen", seen);
    });
    r.get("/secret", async |c: &mut Context| {
        c.header("X-Left", "behind");
        c.string(200, "secret");
    });
    r.get("/plain", async |c: &mut Context| c.string(200, "plain"));
    r.get("/nothing", async |_: &mut Context| {});
    let client = Client::new(r);
    let secret = client.get("/secret").send().await;
    assert_eq!((secret.status(), secret.text().as_str()), (403, "no"));
    assert_eq!(
        (secret.header("x-seen"), secret.header("x-left")),
        ("Some(6) true", "")
    );
    assert_eq!(client.get("/plain").send().await.text(), "plain");
    let nothing = client.get("/nothing").send().await;
    assert_eq!(nothing.header("x-seen"), "Some(0) false");
}

#[tokio::test]
async fn aborting_with_an_error_notes_it() {
    let mut r = engine();
    r.use_middleware(async |c: &mut Context| {
        c.next().await;
        let noted = format!("{} {}", c.errors().len(), c.is_aborted());
        c.header("X-Noted", noted);
    });
    r.get(
        "/",
        (
            async |c: &mut Context| c.abort_with_error(418, std::io::Error::other("no tea")),
            echo,
        ),
    );
    let answer = Client::new(r).get("/").send().await;
    assert_eq!((answer.status(), answer.text().as_str()), (418, ""));
    assert_eq!(answer.header("x-noted"), "1 true");
}

#[tokio::test]
async fn several_files_of_one_field_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = engine().with_state(dir.path().to_owned());
    // The first file fits into memory, the second does not.
    r.settings_mut().max_multipart_memory = 8;
    r.post("/", async |c: &mut Context| -> Result<String> {
        let into = c.state::<std::path::PathBuf>();
        let form = c.multipart_form().await?;
        let mut names = Vec::new();
        for file in form.files_of("file") {
            file.save(into.join(file.file_name())).await?;
            names.push(file.file_name());
        }
        Ok(names.join(" "))
    });
    let part = |field: &str, name: &str, text: &str| {
        format!(
            "--x\r\nContent-Disposition: form-data; name={field}; filename=\"{name}\"\r\n\r\n{text}\r\n"
        )
    };
    let body = [
        part("file", "../a", "small"),
        part("other", "o", ""),
        part("file", "b", "larger than eight bytes"),
        "--x--\r\n".into(),
    ];
    let request = Client::new(r)
        .post("/")
        .header("Content-Type", "multipart/form-data; boundary=x");
    let answer = request.body(body.concat()).send().await;
    assert_eq!(answer.text(), "a b");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(
        (read("a").as_str(), read("b").as_str()),
        ("small", "larger than eight bytes")
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}
