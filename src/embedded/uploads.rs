//! Large results of handlers in the hub's own program: straight into its files.

use std::fmt;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};

use crate::hub::{Hub, HubError, Refusal};
use crate::wire::Held;
use crate::worker::upload::{Parts, UploadError, Uploads};

/// The hub that takes them.
pub(super) struct Within(pub(super) Hub);

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Within")
    }
}

impl Uploads for Within {
    fn put(&self, held: Held, content_type: String, mut parts: Parts) -> BoxFuture<'static, Result<(), UploadError>> {
        let hub = self.0.clone();
        async move {
            let mut upload = hub.upload(held.task_id, held.attempt, &content_type, None).await.map_err(refused)?;
            while let Some(part) = parts.next().await {
                upload.write(part.map_err(UploadError::Read)?).await.map_err(refused)?;
            }
            upload.finish().await.map(drop).map_err(refused)
        }
        .boxed()
    }
}

fn refused(error: HubError) -> UploadError {
    match error {
        HubError::Refused(Refusal::LeaseLost | Refusal::TaskNotFound) | HubError::Stopped => UploadError::Over,
        HubError::Refused(Refusal::Invalid(invalid)) => {
            UploadError::Refused { code: "payload_too_large".into(), detail: invalid.to_string() }
        }
        error => UploadError::Unreachable(error.to_string()),
    }
}
