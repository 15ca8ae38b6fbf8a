//! Forms and queries as pairs of texts, and a form's parts.

use crate::context::Context;
use crate::error::Error;
use std::collections::BTreeMap;

/// A form that was read: its texts, and its files if it had any.
///
/// ```
/// # use curtsy_web::{Context, Result};
/// # async fn example(c: &mut Context) -> Result {
/// let form = c.form().await?;
/// let name = form.value("name").unwrap_or("nobody").to_owned();
/// c.string(200, name);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct Form {
    pub(crate) values: Vec<(String, String)>,
    #[cfg(feature = "multipart")]
    pub(crate) files: Vec<crate::multipart::FormFile>,
}

impl Form {
    /// The texts in the order in which they came.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// for (name, value) in c.form().await?.values() {
    ///     println!("{name} = {value}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn values(&self) -> &[(String, String)] {
        &self.values
    }

    /// The first text of that name.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let form = c.form().await?;
    /// let is_member = form.value("member") == Some("yes");
    /// # Ok(()) }
    /// ```
    pub fn value(&self, name: &str) -> Option<&str> {
        first(&self.values, name)
    }

    /// The files in the order in which they came.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let form = c.multipart_form().await?;
    /// let bytes: u64 = form.files().iter().map(|file| file.size()).sum();
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "multipart")]
    pub fn files(&self) -> &[crate::multipart::FormFile] {
        &self.files
    }

    /// The first file of that field.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let form = c.multipart_form().await?;
    /// let has_picture = form.file("picture").is_some();
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "multipart")]
    pub fn file(&self, field: &str) -> Option<&crate::multipart::FormFile> {
        self.files.iter().find(|file| file.field() == field)
    }

    /// All files of that field, in the order in which they came.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let form = c.multipart_form().await?;
    /// let names: Vec<String> = form.files_of("photos").map(|file| file.file_name()).collect();
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "multipart")]
    pub fn files_of(&self, field: &str) -> impl Iterator<Item = &crate::multipart::FormFile> {
        self.files.iter().filter(move |file| file.field() == field)
    }
}

pub(crate) fn parse(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}

pub(crate) fn first<'p>(pairs: &'p [(String, String)], key: &str) -> Option<&'p str> {
    let (_, value) = pairs.iter().find(|(of, _)| of == key)?;
    Some(value)
}

pub(crate) fn all<'p>(pairs: &'p [(String, String)], key: &str) -> Vec<&'p str> {
    let of_key = pairs.iter().filter(|(of, _)| of == key);
    of_key.map(|(_, value)| value.as_str()).collect()
}

pub(crate) fn map<'p>(pairs: &'p [(String, String)], key: &str) -> BTreeMap<&'p str, &'p str> {
    let entry = |(name, value): &'p (String, String)| {
        let inner = name.strip_prefix(key)?.strip_prefix('[')?;
        Some((inner.strip_suffix(']')?, value.as_str()))
    };
    pairs.iter().filter_map(entry).collect()
}

impl Context {
    /// The body's form, read once: `application/x-www-form-urlencoded`, or
    /// `multipart/form-data` with the `multipart` feature. Another type is an empty form.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let fields = c.form().await?.values().len();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the body cannot be read, is malformed or larger than allowed.
    ///
    /// Cancel safety: none; a body read in part is lost.
    pub async fn form(&mut self) -> Result<&Form, Error> {
        if self.cold().form.is_none() {
            let form = match self.content_type().to_ascii_lowercase().as_str() {
                "application/x-www-form-urlencoded" => Form {
                    values: parse(&self.raw_data().await?),
                    #[cfg(feature = "multipart")]
                    files: Vec::new(),
                },
                #[cfg(feature = "multipart")]
                "multipart/form-data" => self.read_multipart().await?,
                _ => Form::default(),
            };
            self.cold().form = Some(form.into());
        }
        match self.cold().form.as_deref() {
            Some(form) => Ok(form),
            None => Err(Error::bind("the form is gone")),
        }
    }

    /// The first text of a form's field; empty if there is none or the form cannot be read (the
    /// reason is then in [`errors`](Self::errors)).
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let message = c.post_form("message").await;
    /// # }
    /// ```
    pub async fn post_form(&mut self, key: &str) -> String {
        self.get_post_form(key).await.unwrap_or_default()
    }

    /// The first text of a form's field, if it is there.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// if c.get_post_form("subscribe").await.is_some() {
    ///     c.string(200, "subscribed");
    /// }
    /// # }
    /// ```
    pub async fn get_post_form(&mut self, key: &str) -> Option<String> {
        let form = self.form_or_note().await?;
        form.value(key).map(ToOwned::to_owned)
    }

    /// The first text of a form's field, or what is given.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let nick = c.default_post_form("nick", "anonymous").await;
    /// # }
    /// ```
    pub async fn default_post_form(&mut self, key: &str, default: &str) -> String {
        let value = self.get_post_form(key).await;
        value.unwrap_or_else(|| default.to_owned())
    }

    /// All texts of a form's field.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// let colors = c.post_form_array("colors[]").await;
    /// # }
    /// ```
    pub async fn post_form_array(&mut self, key: &str) -> Vec<String> {
        let form = self.form_or_note().await;
        let owned = |form: &Form| all(&form.values, key).into_iter().map(Into::into).collect();
        form.map(owned).unwrap_or_default()
    }

    /// The texts of `key[..]`, as [`query_map`](Self::query_map).
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// // names[first]=ada&names[last]=lovelace
    /// let names = c.post_form_map("names").await;
    /// let first = names.get("first");
    /// # }
    /// ```
    pub async fn post_form_map(&mut self, key: &str) -> BTreeMap<String, String> {
        let Some(form) = self.form_or_note().await else {
            return BTreeMap::new();
        };
        let pairs = map(&form.values, key).into_iter();
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    async fn form_or_note(&mut self) -> Option<&Form> {
        if let Err(mut error) = self.form().await {
            self.record(&mut error);
            return None;
        }
        self.cold().form.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::{all, first, map, parse};

    #[test]
    fn pairs() {
        let pairs = parse(b"a=1&a=2&b=x+y%21&ids[a]=3&ids[b]=4&ids=5&c&=7");
        assert_eq!(first(&pairs, "a"), Some("1"));
        assert_eq!(all(&pairs, "a"), ["1", "2"]);
        assert_eq!(first(&pairs, "b"), Some("x y!"));
        assert_eq!(first(&pairs, "c"), Some(""));
        assert_eq!(first(&pairs, "d"), None);
        let ids: Vec<_> = map(&pairs, "ids").into_iter().collect();
        assert_eq!(ids, [("a", "3"), ("b", "4")]);
    }
}
