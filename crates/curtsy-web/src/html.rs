//! Templates, by minijinja.
//!
//! As in gin a template's name is its file's name without directories, and in debug mode files are
//! read anew for each answer. Values are escaped in every template but those named `.txt`.

use crate::context::Context;
use crate::engine::Engine;
use crate::error::Error;
use crate::mode::Mode;
use crate::response::IntoStatus;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An engine's templates.
#[derive(Clone)]
pub(crate) struct Templates {
    environment: Environment<'static>,
    files: Vec<PathBuf>,
}

impl Templates {
    fn new(environment: Environment<'static>) -> Self {
        let files = Vec::new();
        Self { environment, files }
    }

    fn load(&mut self, files: impl IntoIterator<Item = PathBuf>) -> Result<(), Error> {
        for file in files {
            let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
                return Err(Error::render(format!("{file:?} has no name")));
            };
            let source = std::fs::read_to_string(&file).map_err(Error::render)?;
            self.environment
                .add_template_owned(name.to_owned(), source)
                .map_err(Error::render)?;
            self.files.push(file);
        }
        Ok(())
    }

    fn render<T: Serialize>(&self, name: &str, value: &T) -> Result<String, Error> {
        if Mode::current() == Mode::Debug && !self.files.is_empty() {
            let mut fresh = Self::new(self.environment.clone());
            fresh.load(self.files.iter().cloned())?;
            return fresh.render_loaded(name, value);
        }
        self.render_loaded(name, value)
    }

    fn render_loaded<T: Serialize>(&self, name: &str, value: &T) -> Result<String, Error> {
        let template = self.environment.get_template(name).map_err(Error::render)?;
        let value = minijinja::Value::from(minijinja::value::Serde(value));
        template.render(value).map_err(Error::render)
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".txt") {
            AutoEscape::None
        } else {
            AutoEscape::Html
        }
    });
    environment
}

impl Engine {
    /// Loads the templates whose paths match a pattern, for instance `templates/**/*.html`.
    ///
    /// ```
    /// # fn load() -> Result<(), curtsy_web::Error> {
    /// let mut r = curtsy_web::Engine::new();
    /// r.load_html_glob("templates/**/*.html")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the pattern is malformed or matches nothing, or a file is no template.
    pub fn load_html_glob(&mut self, pattern: &str) -> Result<&mut Self, Error> {
        let paths = glob::glob(pattern).map_err(Error::render)?;
        let files: Vec<_> = paths
            .filter_map(Result::ok)
            .filter(|path| path.is_file())
            .collect();
        if files.is_empty() {
            return Err(Error::render(format!("no template matches {pattern:?}")));
        }
        self.load_html_files(&files)
    }

    /// Loads templates from files.
    ///
    /// ```
    /// # fn load() -> Result<(), curtsy_web::Error> {
    /// let mut r = curtsy_web::Engine::new();
    /// r.load_html_files(&["templates/layout.html", "templates/index.html"])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If a file cannot be read or is no template.
    pub fn load_html_files<P: AsRef<Path>>(&mut self, files: &[P]) -> Result<&mut Self, Error> {
        let table = self.table();
        let mut templates = match &table.templates {
            Some(templates) => (**templates).clone(),
            None => Templates::new(environment()),
        };
        templates.load(files.iter().map(|file| file.as_ref().to_owned()))?;
        table.templates = Some(Arc::new(templates));
        Ok(self)
    }

    /// Uses templates of your own making: with filters, functions, or from memory.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, minijinja::Environment, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut templates = Environment::new();
    /// templates.add_template("index.html", "<h1>{{ title }}</h1>").unwrap();
    ///
    /// let mut r = Engine::new();
    /// r.set_templates(templates);
    /// r.get("/", async |c: &mut Context| {
    ///     c.html(200, "index.html", &serde_json::json!({ "title": "a < b" }));
    /// });
    /// assert_eq!(Client::new(r).get("/").send().await.text(), "<h1>a &lt; b</h1>");
    /// # });
    /// ```
    pub fn set_templates(&mut self, environment: Environment<'static>) -> &mut Self {
        self.table().templates = Some(Arc::new(Templates::new(environment)));
        self
    }
}

impl Context {
    /// Answers with a template. One that is missing or fails is a 500 and a noted error.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.html(200, "index.html", &serde_json::json!({ "title": "Teas" }));
    /// # }
    /// ```
    pub fn html<T: Serialize>(&mut self, status: impl IntoStatus, name: &str, value: &T) {
        let Some(templates) = self.engine.templates.clone() else {
            return self.fail(Error::render("the engine has no templates"));
        };
        match templates.render(name, value) {
            Ok(page) => self.write(status.into_status(), crate::render::HTML, page),
            Err(error) => self.fail(error),
        }
    }
}
