//! Uploads: one file, several files, a form with texts beside them, and names that mean no good.
//!
//! ```sh
//! cd crates/curtsy   # where the files are that curl sends
//! cargo run -p curtsy --example upload -- /tmp/uploads
//! curl -F file=@Cargo.toml http://127.0.0.1:8080/one                                # Cargo.toml uploaded
//! curl -F by=ada -F files=@Cargo.toml -F files=@src/lib.rs http://127.0.0.1:8080/many   # ada uploaded 2 files: Cargo.toml lib.rs
//! curl -F 'file=@Cargo.toml;filename=../../etc/passwd' http://127.0.0.1:8080/one    # passwd uploaded
//! curl -d nothing http://127.0.0.1:8080/one                                         # not multipart/form-data
//! ```

use curtsy::web::{Context, Engine, Error, Result, Run, StatusCode};
use std::path::PathBuf;

/// Where files go.
struct Uploads(PathBuf);

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let into = std::env::args_os().nth(1).map(PathBuf::from);
    let into = into.unwrap_or_else(|| std::env::temp_dir().join("curtsy-uploads"));
    std::fs::create_dir_all(&into)?;

    let mut r = Engine::default().with_state(Uploads(into));
    // What is larger goes to temporary files while it comes in.
    r.settings_mut().max_multipart_memory = 8 << 20;
    r.post("/one", one);
    r.post("/many", many);
    r.run("")?;
    Ok(())
}

async fn one(c: &mut Context) -> Result<()> {
    // Never has a directory in it, whatever the client said. It may still be the name of a file
    // that is there: a real program would choose its own.
    let name = c.form_file("file").await?.file_name();
    let path = c.state::<Uploads>().0.join(&name);
    c.save_uploaded_file("file", path).await?;
    c.string(200, format!("{name} uploaded"));
    Ok(())
}

async fn many(c: &mut Context) -> Result<()> {
    let into = c.state::<Uploads>();
    let form = c.multipart_form().await?;
    let by = form.value("by").unwrap_or("somebody");
    let files: Vec<_> = form.files_of("files").collect();
    if files.is_empty() {
        return Err(Error::new(StatusCode::BAD_REQUEST, "no files").into());
    }
    let mut names = String::new();
    for file in &files {
        file.save(into.0.join(file.file_name())).await?;
        names = names + " " + &file.file_name();
    }
    let text = format!("{by} uploaded {} files:{names}", files.len());
    c.string(200, text);
    Ok(())
}
