//! Directories, files, embedded files: ranges, conditions, and no way out.

use crate::engine;
use curtsy_web::test::Client;
use curtsy_web::{Context, Embedded, StaticDir};
use std::fs;
use tempfile::TempDir;

fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("root/sub")).unwrap();
    fs::create_dir_all(at("root/site")).unwrap();
    fs::write(at("secret.txt"), "secret").unwrap();
    fs::write(at("root/a.txt"), "0123456789").unwrap();
    fs::write(at("root/empty.txt"), "").unwrap();
    fs::write(at("root/b c.html"), "<p>").unwrap();
    fs::write(at("root/sub/x.js"), "1").unwrap();
    fs::write(at("root/site/index.html"), "index").unwrap();
    fs::write(at("root/big.bin"), vec![7; 200_000]).unwrap();
    let link = std::os::unix::fs::symlink::<&str, _>;
    link("../secret.txt", at("root/out")).unwrap();
    link("/etc/passwd", at("root/absolute")).unwrap();
    link("..", at("root/up")).unwrap();
    link("sub/x.js", at("root/inside.js")).unwrap();
    link("loop", at("root/loop")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("root/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    dir
}

fn client(dir: &TempDir, listing: bool) -> Client {
    let mut r = engine();
    let root = dir.path().join("root");
    r.static_dir("/s", StaticDir::new(root).listing(listing));
    Client::new(r)
}

#[tokio::test]
async fn files_and_directories() {
    let dir = tree();
    let client = client(&dir, false);
    for (path, status, body) in [
        ("/s/a.txt", 200, "0123456789"),
        ("/s/empty.txt", 200, ""),
        ("/s/b%20c.html", 200, "<p>"),
        ("/s/sub/x.js", 200, "1"),
        ("/s//sub//x.js", 200, "1"),
        ("/s/inside.js", 200, "1"),
        ("/s/site/", 200, "index"),
        ("/s/a.txt/", 404, "404 page not found"),
        ("/s/sub/", 404, "404 page not found"),
        ("/s/", 404, "404 page not found"),
        ("/s/none", 404, "404 page not found"),
        ("/s/pipe", 404, "404 page not found"),
    ] {
        let answer = client.get(path).send().await;
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (status, body),
            "{path}"
        );
    }
    let head = client.head("/s/a.txt").send().await;
    assert_eq!((head.status(), head.header("content-length")), (200, "10"));
    assert_eq!(head.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(head.header("accept-ranges"), "bytes");
    assert_eq!(client.post("/s/a.txt").send().await.status(), 404);
    let big = client.get("/s/big.bin").send().await;
    assert_eq!(
        (big.bytes().len(), big.header("content-length")),
        (200_000, "200000")
    );
    assert!(big.bytes().iter().all(|byte| *byte == 7));
    for (path, location) in [("/s/site?q=1", "./site/?q=1"), ("/s/site/index.html", "./")] {
        let answer = client.get(path).send().await;
        assert_eq!(
            (answer.status(), answer.header("location")),
            (301, location),
            "{path}"
        );
    }
}

#[tokio::test]
async fn nothing_outside_is_ever_served() {
    let dir = tree();
    for listing in [false, true] {
        let client = client(&dir, listing);
        for path in [
            "/s/../secret.txt",
            "/s/%2e%2e/secret.txt",
            "/s/..%2fsecret.txt",
            "/s/sub/../../secret.txt",
            "/s/....//secret.txt",
            "/s/%5c..%5csecret.txt",
            "/s//etc/passwd",
            "/s/%2fetc%2fpasswd",
            "/s/out",
            "/s/absolute",
            "/s/up/secret.txt",
            "/s/up/",
            "/s/up/root/a.txt",
            "/s/loop",
            "/s/a.txt%00",
            "/s/%00",
        ] {
            let answer = client.get(path).send().await;
            assert_eq!(answer.status(), 404, "{path}: {}", answer.text());
            assert!(!answer.text().contains("secret"), "{path}");
        }
    }
}

#[tokio::test]
async fn a_listing_only_when_asked_for() {
    let dir = tree();
    fs::write(dir.path().join("root/sub/<b>\".txt"), "").unwrap();
    let answer = client(&dir, true).get("/s/sub/").send().await;
    assert_eq!(answer.status(), 200);
    let text = answer.text();
    assert!(text.contains("<a href=\"./x.js\">x.js</a>"), "{text}");
    assert!(
        text.contains("<a href=\"./%3Cb%3E%22.txt\">&lt;b&gt;"),
        "{text}"
    );
    let top = client(&dir, true).get("/s/").send().await.text();
    assert!(top.contains("<a href=\"./sub/\">sub/</a>"), "{top}");
}

#[tokio::test]
async fn ranges() {
    let dir = tree();
    let client = client(&dir, false);
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=-3", 206, "bytes 7-9/10", "789"),
        ("bytes=8-", 206, "bytes 8-9/10", "89"),
        ("bytes=5-100", 206, "bytes 5-9/10", "56789"),
        (
            "bytes=10-",
            416,
            "bytes */10",
            "the range is not satisfiable\n",
        ),
        (
            "bytes=x",
            416,
            "bytes */10",
            "the range is not satisfiable\n",
        ),
        ("bytes=0-9,0-9", 200, "", "0123456789"),
    ] {
        let answer = client.get("/s/a.txt").header("Range", range).send().await;
        assert_eq!(answer.status(), status, "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        assert_eq!(answer.text(), body, "{range}");
    }
    let several = client
        .get("/s/a.txt")
        .header("Range", "bytes=0-1,-2")
        .send()
        .await;
    assert_eq!(several.status(), 206);
    let kind = several.header("content-type");
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let part = |range: &str, body: &str| {
        format!(
            "--{boundary}\r\nContent-Range: bytes {range}/10\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n"
        )
    };
    let whole = part("0-1", "01") + &part("8-9", "89") + &format!("--{boundary}--\r\n");
    assert_eq!(several.text(), whole);
    assert_eq!(several.header("content-length"), whole.len().to_string());
    let head = client
        .head("/s/a.txt")
        .header("Range", "bytes=2-4")
        .send()
        .await;
    assert_eq!((head.status(), head.header("content-length")), (206, "3"));
}

#[tokio::test]
async fn conditions() {
    let dir = tree();
    let client = client(&dir, false);
    let first = client.get("/s/a.txt").send().await;
    let (etag, modified) = (first.header("etag"), first.header("last-modified"));
    assert!(etag.starts_with('"') && modified.ends_with(" GMT"));
    let again = client
        .get("/s/a.txt")
        .header("If-None-Match", etag)
        .send()
        .await;
    assert_eq!((again.status(), again.bytes().len()), (304, 0));
    assert_eq!(again.header("etag"), etag);
    let again = client
        .get("/s/a.txt")
        .header("If-Modified-Since", modified)
        .send()
        .await;
    assert_eq!(again.status(), 304);
    let failed = client
        .get("/s/a.txt")
        .header("If-Match", "\"other\"")
        .send()
        .await;
    assert_eq!(failed.status(), 412);
    fs::write(dir.path().join("root/a.txt"), "changed").unwrap();
    let changed = client
        .get("/s/a.txt")
        .header("If-None-Match", etag)
        .send()
        .await;
    assert_eq!(
        (changed.status(), changed.text().as_str()),
        (200, "changed")
    );
}

#[tokio::test]
async fn a_range_of_another_version_is_the_whole() {
    let dir = tree();
    let client = client(&dir, false);
    let first = client.get("/s/a.txt").send().await;
    let (etag, modified) = (first.header("etag"), first.header("last-modified"));
    for (condition, status, body) in [
        (etag, 206, "234"),
        (modified, 206, "234"),
        ("\"other\"", 200, "0123456789"),
        (&format!("W/{etag}"), 200, "0123456789"),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 200, "0123456789"),
        ("nonsense", 200, "0123456789"),
    ] {
        let request = client.get("/s/a.txt").header("Range", "bytes=2-4");
        let answer = request.header("If-Range", condition).send().await;
        let got = (answer.status(), answer.text());
        assert_eq!(got, (status, body.to_owned()), "{condition}");
    }
}

#[tokio::test]
async fn what_is_not_there_goes_to_no_route() {
    let dir = tree();
    let mut r = engine();
    r.use_middleware(async |c: &mut Context| {
        let value = "1".parse().unwrap();
        c.response_headers_mut().append("x-m", value);
    });
    r.static_dir("/s", dir.path().join("root"));
    r.no_route(async |c: &mut Context| c.string(404, "own page"));
    let answer = Client::new(r).get("/s/none").send().await;
    assert_eq!((answer.status(), answer.text().as_str()), (404, "own page"));
    let seen = answer.headers().get_all("x-m").iter().count();
    assert_eq!(seen, 1, "middleware runs once");
}

#[tokio::test]
async fn single_files_pages_and_attachments() {
    let dir = tree();
    let root = dir.path().join("root");
    let mut r = engine();
    r.static_file("/favicon", root.join("a.txt"));
    r.static_dir("/app", StaticDir::new(root.join("site")).single_page(true));
    let mut r = r.with_state(root.join("a.txt"));
    r.get("/save/:name", async |c: &mut Context| {
        let (path, name) = (c.state::<std::path::PathBuf>(), c.param("name").to_owned());
        c.file_attachment(&*path, &name).await;
    });
    let client = Client::new(r);
    assert_eq!(client.get("/favicon").send().await.text(), "0123456789");
    assert_eq!(client.get("/app/any/route").send().await.text(), "index");
    assert_eq!(client.get("/app/").send().await.text(), "index");
    for (name, header) in [
        ("x.txt", "attachment; filename=\"x.txt\""),
        ("a%22b%5C.txt", "attachment; filename=\"a\\\"b\\\\.txt\""),
        ("%C3%BC.txt", "attachment; filename*=UTF-8''%C3%BC%2Etxt"),
        ("a%0D%0Ab", "attachment; filename=\"ab\""),
    ] {
        let answer = client.get(&format!("/save/{name}")).send().await;
        assert_eq!(answer.header("content-disposition"), header);
        assert_eq!(answer.text(), "0123456789");
    }
}

#[tokio::test]
async fn embedded_files() {
    let files = Embedded::new([
        ("index.html", &b"top"[..]),
        ("css/a.css", &b"0123456789"[..]),
    ]);
    let mut r = engine();
    r.static_embedded("/e", files);
    let client = Client::new(r);
    assert_eq!(client.get("/e/").send().await.text(), "top");
    let css = client.get("/e/css/a.css").send().await;
    assert_eq!(css.header("content-type"), "text/css; charset=utf-8");
    let part = client
        .get("/e/css/a.css")
        .header("Range", "bytes=1-2")
        .send()
        .await;
    assert_eq!((part.status(), part.text().as_str()), (206, "12"));
    let same = client
        .get("/e/css/a.css")
        .header("If-None-Match", css.header("etag"))
        .send()
        .await;
    assert_eq!(same.status(), 304);
    assert_eq!(client.get("/e/css").send().await.status(), 404);
}

#[test]
#[should_panic(expected = "parameters")]
fn static_content_has_no_parameters_in_its_path() {
    engine().static_dir("/:x", "/tmp");
}
