//! Tokens for what a page or a partner may see, and, for those who administer a hub, API tokens and the audit.

use reqwest::Method;

use super::{Client, ClientError};
use crate::access::{Minted, NewScoped};
use crate::wire::{ApiTokenBody, ApiTokenList, ApiTokenMade, ApiTokenView, AuditList};

/// Which rows of the audit, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditQuery {
    /// `who`, `role`, `token_name`, `action`, `target`, `outcome`, `after`, `before`, with what they are to be.
    pub wanted: Vec<(&'static str, String)>,
    pub limit: Option<u32>,
    pub cursor: Option<String>,
}

impl Client {
    /// Makes a scoped token, for a page or a partner: it may do and see what this says, and no more than this client. It ends
    /// by itself.
    pub async fn create_token(&self, new: &NewScoped) -> Result<Minted, ClientError> {
        self.call(self.request(Method::POST, "tokens").json(new)).await
    }

    /// Ends a scoped token before its time, by its `jti`.
    pub async fn revoke_token(&self, jti: &str) -> Result<(), ClientError> {
        self.send(self.of_setting(Method::DELETE, "tokens", jti, "")).await.map(|_| ())
    }

    /// Every API token, by name, without its text.
    pub async fn api_tokens(&self) -> Result<Vec<ApiTokenView>, ClientError> {
        let (mut api_tokens, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let request = self.request(Method::GET, "api-tokens");
            let request = cursor.iter().fold(request, |request, cursor| request.query(&[("cursor", cursor)]));
            let page: ApiTokenList = self.call(request).await?;
            api_tokens.extend(page.api_tokens);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(api_tokens);
            }
        }
    }

    /// Makes an API token. Its text is in this answer and in no other.
    pub async fn create_api_token(&self, new: &ApiTokenBody) -> Result<ApiTokenMade, ClientError> {
        self.call(self.request(Method::POST, "api-tokens").json(new)).await
    }

    /// Takes an API token back. Whoever is connected with it is closed within a second.
    pub async fn revoke_api_token(&self, name: &str) -> Result<(), ClientError> {
        self.send(self.of_setting(Method::DELETE, "api-tokens", name, "")).await.map(|_| ())
    }

    /// A page of the audit.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditList, ClientError> {
        let request = self.request(Method::GET, "audit").query(&query.wanted);
        let request = query.limit.iter().fold(request, |request, limit| request.query(&[("limit", limit)]));
        let request = query.cursor.iter().fold(request, |request, cursor| request.query(&[("cursor", cursor)]));
        self.call(request).await
    }
}
