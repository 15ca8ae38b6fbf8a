//! A JSON API: binding with validation, errors that name the field, a store in the engine's state.
//!
//! ```sh
//! cargo run -p curtsy --example json_api
//! curl http://127.0.0.1:8080/users -d '{"name":"ada","email":"ada@example.org","age":36}' -H 'Content-Type: application/json'   # {"id":1
//! curl http://127.0.0.1:8080/users/1                       # "name":"ada"
//! curl 'http://127.0.0.1:8080/users?min_age=30'            # [{"id":1
//! curl http://127.0.0.1:8080/users/2                       # {"error":"there is no user 2"}
//! curl http://127.0.0.1:8080/users -d '{"name":"x","email":"x","age":3}' -H 'Content-Type: application/json'   # "field":"email"
//! curl http://127.0.0.1:8080/users -d '{"name":"ada","email":"ada@example.org","age":"old"}' -H 'Content-Type: application/json'   # "field":"age"
//! curl -i -X DELETE http://127.0.0.1:8080/users/1          # 204 No Content
//! ```

use curtsy::web::{Context, Engine, Error, Json, Result, Run, StatusCode, Valid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a client sends; the rules are those of the crate `garde`.
#[derive(Clone, Serialize, Deserialize, garde::Validate)]
#[serde(deny_unknown_fields)]
struct User {
    #[garde(length(chars, min = 2, max = 40))]
    name: String,
    #[garde(email)]
    email: String,
    #[garde(range(min = 18, max = 130))]
    age: u8,
}

/// What a client gets.
#[derive(Serialize)]
struct Stored {
    id: u32,
    #[serde(flatten)]
    user: User,
}

#[derive(Default)]
struct Users(Mutex<BTreeMap<u32, User>>);

impl Users {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, User>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Filter {
    #[serde(default)]
    min_age: u8,
}

#[derive(Deserialize)]
struct ById {
    id: u32,
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut r = Engine::default().with_state(Users::default());
    r.settings_mut().handle_method_not_allowed = true;
    let mut users = r.group("/users");
    users.post("", create).get("", list);
    users.get("/:id", read).delete("/:id", delete);
    r.run("")?;
    Ok(())
}

/// `?` answers: 400 with the field that is wrong, 413 if the body is too large.
async fn create(c: &mut Context) -> Result<(StatusCode, Json<Stored>)> {
    let Valid(user) = c.should_bind_json::<Valid<User>>().await?;
    let users = c.state::<Users>();
    let mut users = users.lock();
    let id = users.keys().last().map_or(1, |last| last + 1);
    users.insert(id, user.clone());
    Ok((StatusCode::CREATED, Json(Stored { id, user })))
}

async fn list(c: &mut Context) -> Result<Json<Vec<Stored>>> {
    let filter: Filter = c.should_bind_query().await?;
    let users = c.state::<Users>();
    let stored = |(id, user): (&u32, &User)| Stored {
        id: *id,
        user: user.clone(),
    };
    let found = users.lock();
    let found = found.iter().filter(|(_, user)| user.age >= filter.min_age);
    Ok(Json(found.map(stored).collect()))
}

async fn read(c: &mut Context) -> Result<Json<Stored>> {
    let ById { id } = c.should_bind_uri().await?;
    let user = c.state::<Users>().lock().get(&id).cloned();
    let user = user.ok_or_else(|| missing(id))?;
    Ok(Json(Stored { id, user }))
}

async fn delete(c: &mut Context) -> Result<StatusCode> {
    let ById { id } = c.should_bind_uri().await?;
    let removed = c.state::<Users>().lock().remove(&id);
    removed.ok_or_else(|| missing(id))?;
    Ok(StatusCode::NO_CONTENT)
}

/// A status and what the client may know.
fn missing(id: u32) -> Error {
    Error::new(StatusCode::NOT_FOUND, format!("there is no user {id}"))
}
