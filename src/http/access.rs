//! Tokens, tickets, the audit, and who somebody is.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body::JsonBody;
use super::caller::Caller;
use super::path::Path;
use super::query::{NoQuery, Params, page_of_names};
use super::splice;
use super::state::App;
use crate::access::{AccessChange, AccessKey, AccessRecord, AccessRefusal, MintError, NewScoped, NewTokenError, Role};
use crate::hub::{AccessError, AuditQuery};
use crate::keys::NoTicket;
use crate::task::{Name, Timestamp};
use crate::wire::{
    ACCESS_PAGE_LEN_MAX, ApiTokenBody, ApiTokenList, ApiTokenMade, AuditList, Code, Problem, RevocationBody,
};

/// `GET /api/v1/me`.
pub(super) async fn me(Caller(hub): Caller, _: NoQuery) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.me().await?))
}

/// `POST /api/v1/tickets`.
pub(super) async fn ticket(State(app): State<Arc<App>>, Caller(hub): Caller, _: NoQuery) -> Result<Response, Problem> {
    let ticket = app.keys().ticket(hub.who().clone(), Timestamp::now()).map_err(|why| match why {
        NoTicket::TooMany => Problem::new(Code::Overloaded, "too many tickets wait to be used"),
        NoTicket::Random(_) => no_randomness(),
    })?;
    Ok(once(StatusCode::CREATED, &ticket))
}

/// `POST /api/v1/tokens`.
pub(super) async fn mint(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    JsonBody(new): JsonBody<NewScoped>,
) -> Result<Response, Problem> {
    let minted = app.keys().mint(hub.who(), new, Timestamp::now()).map_err(not_minted)?;
    hub.change_access(Vec::new(), "token.mint", Some(minted.jti.clone())).await?;
    Ok(once(StatusCode::CREATED, &minted))
}

/// `DELETE /api/v1/tokens/{jti}`.
pub(super) async fn revoke_scoped(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    Path(jti): Path<String>,
) -> Result<Response, Problem> {
    let change = app.keys().revoke_scoped(hub.who(), &jti, Timestamp::now()).ok_or_else(no_token)?;
    hub.change_access(vec![change], "token.revoke", Some(jti)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/revocations`.
pub(super) async fn revoke_subject(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    JsonBody(RevocationBody { iss, sub, before }): JsonBody<RevocationBody>,
) -> Result<Response, Problem> {
    for (field, text) in [("iss", &iss), ("sub", &sub)] {
        if text.is_empty() {
            return Err(Problem::wrong(field, "must not be empty"));
        }
        if text.len() > SUBJECT_BYTES_MAX {
            return Err(Problem::over(field, SUBJECT_BYTES_MAX as u64, "bytes"));
        }
    }
    let change = app.keys().revoke_subject(&iss, &sub, before.unwrap_or_else(Timestamp::now));
    hub.change_access(vec![change], "subject.revoke", Some(format!("{iss} {sub}"))).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The longest issuer, and the longest subject, that is revoked. Tokens are not much longer.
const SUBJECT_BYTES_MAX: usize = 1_024;

/// `GET /api/v1/api-tokens`.
pub(super) async fn api_tokens(Caller(hub): Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (after, len_max) = page_of_names(query.as_deref(), ACCESS_PAGE_LEN_MAX)?;
    let mut tokens = hub.api_tokens(after.as_ref())?;
    let more = tokens.len() > len_max;
    tokens.truncate(len_max);
    let next_cursor = tokens.last().filter(|_| more).map(|last| last.name.to_string());
    Ok(splice::json_of(&ApiTokenList { api_tokens: tokens.into_iter().map(Into::into).collect(), next_cursor }))
}

/// `POST /api/v1/api-tokens`.
pub(super) async fn make_api_token(
    Caller(hub): Caller,
    _: NoQuery,
    JsonBody(body): JsonBody<ApiTokenBody>,
) -> Result<Response, Problem> {
    let now = Timestamp::now();
    let new = body.read(now).map_err(|(field, why)| Problem::wrong(field, why))?;
    let (record, token) = new.make(now).map_err(|why| match why {
        NewTokenError::Invalid(invalid) => invalid.into(),
        NewTokenError::Random(_) => no_randomness(),
    })?;
    let change = AccessChange::Put(AccessRecord::ApiToken(record.clone()));
    hub.change_access(vec![change], "api_token.create", Some(record.name.to_string())).await?;
    Ok(once(StatusCode::CREATED, &ApiTokenMade { api_token: record.into(), token }))
}

/// `DELETE /api/v1/api-tokens/{name}`.
pub(super) async fn revoke_api_token(
    Caller(hub): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let name = Name::parse(&name).map_err(|_| no_token())?;
    let change = AccessChange::Remove(AccessKey::ApiToken { name: name.clone() });
    hub.change_access(vec![change], "api_token.revoke", Some(name.to_string())).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /api/v1/audit`.
pub(super) async fn audit(Caller(hub): Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::of(query.as_deref())?;
    let role = params.text("role").map(|role| role.parse::<Role>()).transpose();
    let beyond = params.text("cursor").map(|cursor| cursor.parse::<u64>()).transpose();
    let query = AuditQuery {
        who: params.text("who").map(|who| Name::new(&who)),
        role: role.map_err(|why| Problem::wrong("role", &why))?,
        token: params.text("token_name"),
        action: params.text("action"),
        target: params.text("target"),
        outcome: params.text("outcome"),
        after: params.time("after")?,
        before: params.time("before")?,
        beyond: beyond.map_err(|_| {
            Problem::new(Code::BadCursor, "the cursor is not one of this list; begin again without").at("cursor")
        })?,
        limit: params.number("limit", 1, ACCESS_PAGE_LEN_MAX as u64)?.unwrap_or(100) as usize,
    };
    params.finish()?;
    let page = hub.audit(query).await?;
    let next_cursor = page.beyond.map(|beyond| beyond.to_string());
    Ok(splice::json_of(&AuditList { rows: page.entries, next_cursor }))
}

/// An answer that holds a secret, which no cache is to keep.
fn once(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let mut response = splice::json_of(value);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn no_token() -> Problem {
    Problem::new(Code::TokenNotFound, "there is no such token")
}

fn no_randomness() -> Problem {
    Problem::new(Code::Internal, "the system has no randomness to make a token of")
}

/// Why no scoped token was made.
pub(super) fn not_minted(why: MintError) -> Problem {
    match why {
        MintError::Forbidden { field, why } => {
            Problem { field: field.map(Into::into), ..Problem::new(Code::Forbidden, why) }
        }
        MintError::Invalid(invalid) => invalid.into(),
        MintError::Open => {
            let detail = "this hub is open: it asks nobody for a token. Make a first one (taskhub init, or taskhub token create), then \
                          this one with that";
            Problem::new(Code::Conflict, detail)
        }
        MintError::Unavailable => Problem::new(Code::Overloaded, "the hub has no key to sign with yet; try again"),
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Problem {
        match error {
            AccessError::Failed(error) => error.into(),
            AccessError::Refused(refusal) => {
                let code = match refusal {
                    AccessRefusal::Taken => Code::Conflict,
                    AccessRefusal::NotThere => return no_token(),
                    AccessRefusal::Full { max } => {
                        return Problem {
                            limit: Some(max as u64),
                            ..Problem::new(Code::LimitExceeded, refusal.to_string())
                        };
                    }
                    AccessRefusal::StaysClosed => Code::Conflict,
                };
                Problem::new(code, refusal.to_string())
            }
        }
    }
}
