//! What one user may have at once, over all queues.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::queue::{LIMIT_MAX, range};
use crate::task::{Invalid, USER_ID_CHARS_MAX, saturated};

/// The most users with limits of their own.
pub const LIMITED_USERS_MAX: usize = 10_000;

/// Limits of users.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// What holds for every user.
    pub user: UserLimits,
    /// What holds for these instead, field by field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, UserLimits>,
}

/// Limits of one user. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserLimits {
    /// The most tasks that run at once.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub running: Option<u32>,
    /// The most unfinished tasks that do not run; more are refused.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub waiting: Option<u32>,
    /// The most tasks submitted within a minute; more are refused.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub submits_per_min: Option<u32>,
}

impl Limits {
    /// What holds for a user.
    pub fn of(&self, user_id: &str) -> UserLimits {
        let UserLimits { running, waiting, submits_per_min } = self.users.get(user_id).cloned().unwrap_or_default();
        UserLimits {
            running: running.or(self.user.running),
            waiting: waiting.or(self.user.waiting),
            submits_per_min: submits_per_min.or(self.user.submits_per_min),
        }
    }

    /// The most tasks of a user that run at once.
    pub fn running_of(&self, user_id: &str) -> Option<u32> {
        self.users.get(user_id).and_then(|limits| limits.running).or(self.user.running)
    }

    /// Whether the tasks of any user that run at once are limited.
    pub fn limit_running(&self) -> bool {
        self.user.running.is_some() || self.users.values().any(|limits| limits.running.is_some())
    }

    /// Checks each value against its bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        let each = |limits: &UserLimits| {
            let UserLimits { running, waiting, submits_per_min } = limits;
            for (field, limit) in [("running", running), ("waiting", waiting), ("submits_per_min", submits_per_min)] {
                range(field, limit.map(u64::from), u64::from(LIMIT_MAX))?;
            }
            Ok(())
        };
        each(&self.user).map_err(|invalid: Invalid| invalid.within("user"))?;
        if self.users.len() > LIMITED_USERS_MAX {
            return Err(Invalid::limit("users", LIMITED_USERS_MAX as u64, "users"));
        }
        for (user_id, limits) in &self.users {
            if user_id.is_empty() || user_id.chars().count() > USER_ID_CHARS_MAX {
                return Err(Invalid::value("users", format!("must be named by 1–{USER_ID_CHARS_MAX} characters")));
            }
            each(limits).map_err(|invalid| invalid.within(format_args!("users.{user_id}")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_one_user_goes_before_what_holds_for_all() {
        let limits: Limits = serde_json::from_str(
            r#"{"user":{"running":3,"waiting":10},"users":{"u1":{"running":5},"u2":{"submits_per_min":1}}}"#,
        )
        .unwrap();
        let of = |user| {
            let UserLimits { running, waiting, submits_per_min } = limits.of(user);
            (running, waiting, submits_per_min)
        };
        assert_eq!(of("u1"), (Some(5), Some(10), None));
        assert_eq!(of("u2"), (Some(3), Some(10), Some(1)));
        assert_eq!(of("u3"), (Some(3), Some(10), None));
        assert!(limits.limit_running() && !Limits::default().limit_running());
    }

    #[test]
    fn each_bound_names_its_field() {
        let check = |json: &str, wrong: Option<&str>| {
            let limits: Limits = serde_json::from_str(json).unwrap();
            assert_eq!(limits.check().err().map(|invalid| invalid.field.to_string()).as_deref(), wrong, "{json}");
        };
        check(r#"{"user":{"running":0}}"#, Some("user.running"));
        check(r#"{"users":{"u":{"waiting":1e9}}}"#, Some("users.u.waiting"));
        check(r#"{"users":{"":{}}}"#, Some("users"));
        check(r#"{"users":{"u":{"submits_per_min":1}}}"#, None);
    }
}
