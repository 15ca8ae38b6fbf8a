//! The GitHub API's routes: each is found, with its parameters.

use crate::{echo, engine};
use curtsy_web::test::Client;
use http::Method;

/// `METHOD,METHOD /path`, a line for each path.
const ROUTES: &str = include_str!("github.txt");

fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.lines().flat_map(|line| {
        let (methods, path) = line.split_once(' ').unwrap();
        methods.split(',').map(move |method| (method, path))
    })
}

#[tokio::test]
async fn all_of_github_is_found() {
    let mut r = engine();
    for (method, path) in routes() {
        r.handle(method, path, echo);
    }
    assert_eq!(r.routes().len(), 203);
    let client = Client::new(r.clone());
    for (method, pattern) in routes() {
        let path = pattern.replace(':', "v-");
        let of = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(r.route_of(&of, &path), Some(pattern));
        let mut expected = pattern.to_owned();
        for name in pattern.split('/').filter_map(|part| part.strip_prefix(':')) {
            expected.push_str(&format!(" {name}=v-{name}"));
        }
        let answer = client.request(method, &path).send().await;
        assert_eq!(answer.text(), expected);
    }
    assert_eq!(r.route_of(&Method::GET, "/repos/a/b/c/d/e"), None);
}
