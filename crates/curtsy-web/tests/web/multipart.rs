//! Forms with files.

use crate::engine;
use curtsy_web::test::{Answer, Client};
use curtsy_web::{Context, Engine, Error};

async fn upload(c: &mut Context) -> Result<(), Error> {
    let form = c.multipart_form().await?;
    let mut text = format!("{:?}", form.values());
    for file in form.files() {
        let bytes = file.bytes().await.map_err(Error::private)?;
        assert_eq!(bytes.len() as u64, file.size());
        text.push_str(&format!(
            " {}={:?}:{}:{}",
            file.field(),
            file.file_name(),
            file.size(),
            file.content_type()
        ));
    }
    c.string(200, text);
    Ok(())
}

fn app(memory: usize) -> Engine {
    let mut r = engine();
    r.settings_mut().max_multipart_memory = memory;
    r.post("/", upload);
    r
}

fn part(disposition: &str, content: &str) -> String {
    format!(
        "--X\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: text/plain\r\n\r\n{content}\r\n"
    )
}

async fn send(r: Engine, body: String) -> Answer {
    let request = Client::new(r).post("/");
    let request = request.header("Content-Type", "multipart/form-data; boundary=X");
    request.body(body).send().await
}

#[tokio::test]
async fn texts_and_files() {
    let body =
        part("name=\"a\"", "1") + &part("name=\"f\"; filename=\"x.txt\"", "content") + "--X--\r\n";
    let expected = r#"[("a", "1")] f="x.txt":7:text/plain"#;
    for memory in [1 << 20, 4] {
        // With 4 bytes the file goes to the disk; nobody sees a difference.
        let answer = send(app(memory), body.clone()).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, expected));
    }
}

#[tokio::test]
async fn hostile_names_stay_names() {
    for (sent, name) in [
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..", "file"),
        ("C:\\\\x\\\\evil.exe", "evil.exe"),
        ("", "file"),
    ] {
        let body = part(&format!("name=\"f\"; filename=\"{sent}\""), "c") + "--X--\r\n";
        let answer = send(app(1 << 20), body).await;
        assert_eq!(
            answer.text(),
            format!("[] f={name:?}:1:text/plain"),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn a_file_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("saved");
    for memory in [1 << 20, 0] {
        let mut r = engine().with_state(target.clone());
        r.settings_mut().max_multipart_memory = memory;
        r.post("/", async |c: &mut Context| -> Result<(), Error> {
            let target = c.state::<std::path::PathBuf>();
            c.save_uploaded_file("f", &*target).await?;
            let missing = c.form_file("none").await;
            assert!(missing.unwrap_err().is_bind());
            Ok(())
        });
        let body = part("name=\"f\"; filename=\"x\"", "saved content") + "--X--\r\n";
        assert_eq!(send(r, body).await.status(), 200);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "saved content");
    }
}

#[tokio::test]
async fn malformed_forms_are_refused() {
    let whole = part("name=\"a\"", "1") + "--X--\r\n";
    for (kind, body) in [
        ("multipart/form-data", whole.clone()),
        ("multipart/form-data; boundary=Y", whole.clone()),
        (
            "multipart/form-data; boundary=X",
            whole[..whole.len() / 2].to_owned(),
        ),
        ("text/plain", whole.clone()),
    ] {
        let request = Client::new(app(1 << 20))
            .post("/")
            .header("Content-Type", kind);
        assert_eq!(request.body(body).send().await.status(), 400, "{kind}");
    }
    let many = part("name=\"a\"", "1").repeat(1001) + "--X--\r\n";
    assert_eq!(send(app(1 << 20), many).await.status(), 400);
    // Texts are kept in memory: they do not spill.
    let text = part("name=\"a\"", &"x".repeat(100)) + "--X--\r\n";
    assert_eq!(send(app(10), text).await.status(), 413);
}

#[tokio::test]
async fn texts_bind() {
    let mut r = engine();
    r.post("/", async |c: &mut Context| -> Result<(), Error> {
        let map: std::collections::BTreeMap<String, String> = c.bind().await?;
        c.string(200, format!("{map:?}"));
        Ok(())
    });
    let body = part("name=\"a\"", "1&b=2") + "--X--\r\n";
    assert_eq!(send(r, body).await.text(), r#"{"a": "1&b=2"}"#);
}
