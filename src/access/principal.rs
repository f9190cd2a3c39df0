//! A caller that is known.

use std::fmt;
use std::sync::Arc;

use super::{ApiToken, Fingerprint, Hidden, Right, Rights, Role};
use crate::task::{Filter, FilterSpec, Name, PatternSet, Task, Timestamp};

/// A caller that is known, from the moment its credential was checked. It is shared by all that the caller does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub role: Role,
    /// Whose tasks it submits, and by whom it is counted. None: a program that acts for everyone.
    pub user_id: Option<Name>,
    /// Those of its role; of a scoped token, what its maker may and the token allows.
    pub rights: Rights,
    pub sight: Sight,
    /// Parts of tasks that are kept from it.
    pub hidden: Hidden,
    pub works: Works,
    pub credential: Credential,
    /// From this moment on it is nobody.
    pub expires_at: Option<Timestamp>,
}

/// The tasks that a caller sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    #[default]
    All,
    /// Those that match.
    Of(Arc<Filter>),
    /// Those that its own workers hold, and held a moment ago.
    Held,
}

/// What a worker takes. `None`: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Works {
    pub task_types: Option<PatternSet>,
    pub queues: Option<PatternSet>,
}

/// By what a caller came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// By none: the hub asks for none. Ends when it is closed.
    None,
    /// By none, and by right: the program that holds the hub, or whoever may open the files of the hub.
    Owner,
    /// This API token. Not its name alone: one that was removed and made anew is another.
    ApiToken(Arc<ApiToken>),
    /// A token that an application signed.
    Jwt(Arc<Signed>),
    /// A token that the hub signed, for this maker.
    Scoped(Arc<Scoped>),
}

/// What makes a JWT of an application another one than the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub issuer: Arc<str>,
    pub subject: Arc<str>,
    /// 1970 where it does not say: then any revocation of its subject is meant for it.
    pub issued_at: Timestamp,
    /// The key that it was signed with. When the issuer takes that back, it is in force no longer.
    pub key: Fingerprint,
    /// Which tasks it is for, of those of its role and user.
    pub filter: Option<Arc<FilterSpec>>,
}

/// What makes a scoped token another one than the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scoped {
    pub jti: Arc<str>,
    /// The key of the hub that it was signed with.
    pub kid: Arc<str>,
    pub issued_at: Timestamp,
    /// It is spent by one submission (`Keys::spend`).
    pub once: bool,
    pub maker: Arc<Principal>,
}

impl Principal {
    /// A caller of a role, with all its rights.
    pub fn new(role: Role, user_id: Option<Name>, credential: Credential) -> Principal {
        let sight = match role {
            Role::Viewer | Role::Operator | Role::Admin => Sight::All,
            // Without a user nothing is their own.
            Role::User => {
                Sight::Of(Arc::new(Filter { user_id: Some(user_id.iter().cloned().collect()), ..Filter::default() }))
            }
            Role::Worker => Sight::Held,
        };
        Principal {
            role,
            user_id,
            rights: role.rights(),
            sight,
            hidden: Hidden::default(),
            works: Works::default(),
            credential,
            expires_at: None,
        }
    }

    /// The same caller, less the tasks that do not match, and less these parts of tasks. Who does not see all has no say in what is
    /// everybody's: no more than a user, whatever the role.
    pub fn narrowed(self, filter: Option<&Filter>, hidden: Hidden) -> Principal {
        if filter.is_none() && hidden.is_nothing() {
            return self;
        }
        let sight = match (self.sight, filter) {
            (Sight::Of(seen), Some(filter)) => Sight::Of(Arc::new(seen.and(filter))),
            (Sight::All, Some(filter)) => Sight::Of(Arc::new(filter.clone())),
            (sight, _) => sight,
        };
        Principal { sight, hidden, rights: self.rights.and(Role::User.rights()), ..self }
    }

    /// Each caller of an open hub: may do everything, until the hub is closed.
    pub fn everyone() -> Principal {
        Principal::new(Role::Admin, None, Credential::None)
    }

    /// Whoever asks for the hub's numbers, where these are open.
    pub fn scraper() -> Principal {
        Principal { rights: Rights::of(&[Right::SeeHub]), ..Principal::new(Role::Viewer, None, Credential::None) }
    }

    /// A socket that has not said yet who it is.
    pub fn nobody() -> Principal {
        let sight = Sight::Of(Arc::new(Filter { task_id: Some(Default::default()), ..Filter::default() }));
        Principal { rights: Rights::default(), sight, ..Principal::new(Role::Viewer, None, Credential::None) }
    }

    /// Whether it is a socket that has not said yet who it is.
    pub fn is_nobody(&self) -> bool {
        self.rights == Rights::default()
    }

    /// Whether it sees all of its user's tasks, and no others.
    pub fn sees_its_user(&self) -> bool {
        let Sight::Of(filter) = &self.sight else { return false };
        let own = self.user_id.iter().cloned().collect();
        **filter == Filter { user_id: Some(own), ..Filter::default() }
    }

    /// The user whose tasks it sees, all of them and no others, whoever that is.
    pub fn only_user(&self) -> Option<&Name> {
        let Sight::Of(filter) = &self.sight else { return None };
        let users = filter.user_id.as_ref().filter(|users| users.len() == 1)?;
        let is_all = **filter == Filter { user_id: Some(users.clone()), ..Filter::default() };
        users.iter().next().filter(|_| is_all && self.may(Right::Watch))
    }

    /// Tells callers apart whose keys of idempotency must not meet: by user; and by token, or by what its application signs
    /// them to see, where that is only some of a user's tasks.
    pub fn whose(&self) -> String {
        let user = self.user_id.as_ref().map_or("", |user| user.as_str());
        match (&self.credential, &self.sight) {
            (Credential::Scoped(scoped), _) if !self.sees_its_user() => format!("{user}\0{}", scoped.jti),
            (_, Sight::Of(sight)) if !self.sees_its_user() => format!("{user}\0sight\0{:016x}", sight.digest()),
            _ => user.to_owned(),
        }
    }

    /// Who holds the hub itself: the program that it is embedded in, or whoever may open its files.
    pub fn owner() -> Principal {
        Principal::new(Role::Admin, None, Credential::Owner)
    }

    pub fn may(&self, right: Right) -> bool {
        self.rights.has(right)
    }
}

impl Credential {
    /// Whose it is, whatever token of theirs it is: a worker that renews its token stays the same.
    pub fn holder(&self) -> String {
        match self {
            Credential::Jwt(signed) => format!("jwt:{}\0{}", signed.issuer, signed.subject),
            Credential::Scoped(scoped) => scoped.maker.credential.holder(),
            other => other.to_string(),
        }
    }
}

/// The word of the audit: `none`, `owner`, `api:NAME`, `jwt:ISSUER`, `scoped:JTI`.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::None => f.write_str("none"),
            Credential::Owner => f.write_str("owner"),
            Credential::ApiToken(token) => write!(f, "api:{}", token.name),
            Credential::Jwt(signed) => write!(f, "jwt:{}", signed.issuer),
            Credential::Scoped(scoped) => write!(f, "scoped:{}", scoped.jti),
        }
    }
}

impl Sight {
    /// Whether a record is in it, by the labels that the task has now. What workers hold is not told by records alone: it is asked
    /// where that is known.
    pub fn covers(&self, task: &Task) -> bool {
        match self {
            Sight::All => true,
            Sight::Of(filter) => filter.matches(task),
            Sight::Held => false,
        }
    }

    /// Whether a task may leave it: labels are all that may change of what it looks at.
    pub fn may_be_left(&self) -> bool {
        matches!(self, Sight::Of(filter) if !filter.labels.is_empty())
    }
}
