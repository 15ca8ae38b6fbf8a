//! What is measured without a socket: the routers alone, whole frameworks as a function from request to answer, and
//! this framework's own requests.
//!
//! The routes are the GitHub API's, 203 of them, each asked for once a pass; a parameter's value is `v-NAME`. Every
//! router has a tree for each method, found by comparing methods one after another as ours does: so nobody pays for
//! another's habit. What a router leaves behind is looked at, so that no work can be left out by the compiler.
//!
//! Deliberately absent: an allocator. The programs bring one each: the products' for times, a counting one for counts.

#![forbid(unsafe_code)]

use std::{
    hint::black_box,
    pin::pin,
    task::{Context as TaskContext, Poll, Waker},
};

use axum::{Router as Axum, routing::MethodFilter};
use curtsy_web::{Body, Context, Engine, Mode, Recovery};
use http::{Method, Request, header};
use serde::{Deserialize, Serialize};
use tower::Service as _;

/// `METHOD,METHOD /path`, a line for each path: the very file that the framework's tests read.
const GITHUB: &str = include_str!("../../../../crates/curtsy-web/tests/web/github.txt");

/// A method and a pattern in gin's syntax.
pub type Route = (Method, &'static str);

/// The routes of the GitHub API.
pub fn routes() -> Vec<Route> {
    let line = |line: &'static str| {
        let (methods, pattern) = line.split_once(' ').unwrap_or(("GET", line));
        let method = |name: &str| Method::from_bytes(name.as_bytes()).unwrap_or_default();
        let methods: Vec<Method> = methods.split(',').map(method).collect();
        methods.into_iter().map(move |method| (method, pattern))
    };
    GITHUB.lines().flat_map(line).collect()
}

/// A path that the pattern matches.
pub fn path(pattern: &str) -> String {
    pattern.replace(':', "v-")
}

/// The pattern in the syntax of those who write `{name}`.
pub fn braces(pattern: &str) -> String {
    let part = |part: &str| match part.strip_prefix(':') {
        Some(name) => format!("{{{name}}}"),
        None => part.to_owned(),
    };
    pattern.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// A router by itself: whether there is a route.
pub struct Matcher {
    /// Whose it is.
    pub name: &'static str,
    /// Looks a path up.
    pub find: Box<dyn Fn(&Method, &str) -> bool>,
}

/// Every router that can be asked by itself. gin's and axum's cannot: they are asked as [`frameworks`].
pub fn matchers() -> Vec<Matcher> {
    vec![
        Matcher {
            name: "curtsy",
            find: curtsy(),
        },
        Matcher {
            name: "matchit",
            find: matchit(),
        },
        Matcher {
            name: "path-tree",
            find: path_tree(),
        },
        Matcher {
            name: "actix-router",
            find: actix(),
        },
    ]
}

fn curtsy() -> Box<dyn Fn(&Method, &str) -> bool> {
    let engine = engine();
    Box::new(move |method, path| black_box(engine.route_of(method, path)).is_some())
}

fn matchit() -> Box<dyn Fn(&Method, &str) -> bool> {
    let trees = by_method(|tree: &mut matchit::Router<usize>, pattern, id| {
        tree.insert(braces(pattern), id).is_ok()
    });
    Box::new(move |method, path| {
        tree(&trees, method).is_some_and(|tree| black_box(tree.at(path)).is_ok())
    })
}

fn path_tree() -> Box<dyn Fn(&Method, &str) -> bool> {
    let trees = by_method(|tree: &mut path_tree::PathTree<usize>, pattern, id| {
        let _ = tree.insert(pattern, id);
        true
    });
    Box::new(move |method, path| {
        tree(&trees, method).is_some_and(|tree| black_box(tree.find(path)).is_some())
    })
}

fn actix() -> Box<dyn Fn(&Method, &str) -> bool> {
    let mut trees: Vec<(Method, actix_router::RouterBuilder<usize>)> = Vec::new();
    for (id, (method, pattern)) in routes().into_iter().enumerate() {
        let at = trees.iter().position(|(of, _)| *of == method);
        let at = at.unwrap_or_else(|| {
            trees.push((method, actix_router::Router::build()));
            trees.len() - 1
        });
        trees[at].1.path(braces(pattern), id);
    }
    let trees: Vec<(Method, actix_router::Router<usize>)> = trees
        .into_iter()
        .map(|(method, builder)| (method, builder.finish()))
        .collect();
    Box::new(move |method, path| {
        tree(&trees, method).is_some_and(|tree| {
            let mut path = actix_router::Path::new(path);
            let found = tree.recognize(&mut path).is_some();
            black_box(&path);
            found
        })
    })
}

fn by_method<T: Default>(insert: impl Fn(&mut T, &str, usize) -> bool) -> Vec<(Method, T)> {
    let mut trees: Vec<(Method, T)> = Vec::new();
    for (id, (method, pattern)) in routes().into_iter().enumerate() {
        let at = trees.iter().position(|(of, _)| *of == method);
        let at = at.unwrap_or_else(|| {
            trees.push((method, T::default()));
            trees.len() - 1
        });
        assert!(
            insert(&mut trees[at].1, pattern, id),
            "{pattern} is refused"
        );
    }
    trees
}

fn tree<'t, T>(trees: &'t [(Method, T)], method: &Method) -> Option<&'t T> {
    let (_, tree) = trees.iter().find(|(of, _)| of == method)?;
    Some(tree)
}

/// A framework as a function: a request goes in, its answer is dropped.
pub struct Framework {
    /// Whose it is.
    pub name: &'static str,
    /// Answers a request; the status.
    pub answer: Box<dyn FnMut(Request<Body>) -> u16>,
}

/// The frameworks with the 203 routes and handlers that do nothing.
pub fn frameworks() -> Vec<Framework> {
    let engine = engine();
    let mut axum = axum();
    vec![
        Framework {
            name: "curtsy",
            answer: Box::new(move |request| status(engine.call_with(request, None))),
        },
        Framework {
            name: "axum",
            answer: Box::new(move |request| {
                status(axum.call(request.map(|_| axum::body::Body::empty())))
            }),
        },
    ]
}

fn engine() -> Engine {
    Mode::set(Mode::Release);
    let mut engine = Engine::new();
    for (method, pattern) in routes() {
        engine.handle(method.as_str(), pattern, nothing);
    }
    engine
}

async fn nothing(_: &mut Context) {}

fn axum() -> Axum {
    let mut router = Axum::new();
    for (method, pattern) in routes() {
        let on = MethodFilter::try_from(method).unwrap_or(MethodFilter::GET);
        router = router.route(&braces(pattern), axum::routing::on(on, async || ()));
    }
    router
}

/// What `/user/:name` answers with.
#[derive(Serialize)]
pub struct User {
    name: String,
    admin: bool,
}

/// What `/signup` reads.
#[derive(Deserialize)]
pub struct Signup {
    name: String,
    email: String,
}

/// One kind of request to this framework, for counting what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Only the request is made: what is to be taken off the others.
    Nothing,
    /// `GET /text`, answered with a static text.
    Text,
    /// `GET /user/ada`, answered with the parameter as JSON.
    User,
    /// The same behind a middleware that calls `next`.
    Behind,
    /// The same behind the recovery: gin's default middleware without its logger.
    Recovered,
    /// `POST /signup`, JSON read and answered.
    Signup,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Text,
        Self::User,
        Self::Behind,
        Self::Recovered,
        Self::Signup,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Text => "text",
            Self::User => "user",
            Self::Behind => "behind",
            Self::Recovered => "recovered",
            Self::Signup => "signup",
        }
    }

    /// A request of the kind, as a server's parser would hand it on.
    pub fn request(self) -> Request<Body> {
        let (method, path, body) = match self {
            Self::Nothing | Self::User => (Method::GET, "/user/ada", Body::empty()),
            Self::Text => (Method::GET, "/text", Body::empty()),
            Self::Behind => (Method::GET, "/behind/ada", Body::empty()),
            Self::Recovered => (Method::GET, "/recovered/ada", Body::empty()),
            Self::Signup => {
                let body = Body::from(r#"{"name":"ada","email":"ada@example.org"}"#);
                (Method::POST, "/signup", body)
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(path);
        let headers = request.headers_mut();
        let value = header::HeaderValue::from_static;
        headers.insert(header::HOST, value("localhost:8080"));
        headers.insert(header::USER_AGENT, value("load/1"));
        headers.insert(header::ACCEPT, value("*/*"));
        if self == Self::Signup {
            headers.insert(header::CONTENT_TYPE, value("application/json"));
        }
        request
    }
}

/// An engine that answers every [`Asked`].
pub fn site() -> Engine {
    Mode::set(Mode::Release);
    let mut engine = Engine::new();
    engine.get("/text", async |c: &mut Context| {
        c.string(200, "Hello, World!")
    });
    engine.get("/user/:name", user);
    engine.get("/behind/:name", (passing, user));
    engine.get("/recovered/:name", (Recovery::new(), user));
    engine.post("/signup", signup);
    engine
}

async fn signup(c: &mut Context) -> curtsy_web::Result {
    let Signup { name, email } = c.should_bind_json().await?;
    black_box(email);
    c.json(201, &User { name, admin: false });
    Ok(())
}

async fn passing(c: &mut Context) {
    c.next().await;
}

async fn user(c: &mut Context) {
    let name = c.param("name").to_owned();
    c.json(200, &User { name, admin: false });
}

/// Sends one and throws the answer away.
pub fn ask(engine: &Engine, asked: Asked) {
    let request = black_box(asked.request());
    if asked != Asked::Nothing {
        let status = status(engine.call_with(request, None));
        assert!(matches!(status, 200 | 201), "{asked:?} answers {status}");
    }
}

/// Runs a future that never waits; its answer's status.
fn status<B, E>(future: impl Future<Output = Result<http::Response<B>, E>>) -> u16 {
    let mut cx = TaskContext::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(Ok(answer)) => black_box(&answer).status().as_u16(),
        Poll::Ready(Err(_)) | Poll::Pending => 0,
    }
}
