use curtsy_web::{Context, Engine, Json, test::Client};
async fn mw(c: &mut Context) { c.set("a", 1u32); c.next().await; }
async fn h(c: &mut Context) -> Json<Vec<&str>> { tokio::task::yield_now().await; Json(vec![c.param("x")]) }
#[tokio::test]
async fn works() {
    let mut r = Engine::default();
    r.get("/p/:x", async |c: &mut Context| { let t = format!("hi {}", c.param("x")); tokio::task::yield_now().await; c.string(200, t) });
    r.get("/q/:x", (mw, h));
    r.get("/boom", async |c: &mut Context| { if c.path() != "" { panic!("x") } });
    let c = Client::new(r);
    assert_eq!(c.get("/p/1").send().await.text(), "hi 1");
    assert_eq!(c.get("/q/1").send().await.text(), "[\"1\"]");
    assert_eq!(c.get("/nope").send().await.text(), "404 page not found");
    assert_eq!(c.get("/boom").send().await.status(), 500);
}
