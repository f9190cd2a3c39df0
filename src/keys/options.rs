//! What is set about access when a hub starts: the table `auth` of its file, as it stands there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::access::{Alg, JwtRules, Role};
use crate::task::Strict;

/// The most issuers of JWTs.
pub const ISSUERS_MAX: usize = 32;
/// How often keys are fetched again where nothing is said.
const REFRESH_DEFAULT: Duration = Duration::from_secs(300);
/// How often at most.
const REFRESH_MIN: Duration = Duration::from_secs(5);

/// What is set about access when a hub starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyOptions {
    /// Serves callers without a credential whatever is kept (`--open`).
    pub open: bool,
    /// Shows the hub's numbers to whoever asks (`--metrics-open`).
    pub metrics_open: bool,
    pub issuers: Vec<JwtIssuer>,
}

/// The table `auth`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    #[serde(default)]
    pub jwt: Vec<JwtIssuer>,
}

/// An application that signs tokens: one `[[auth.jwt]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtIssuer {
    pub iss: String,
    /// Whom its tokens are for: one text, or a list of which one must be meant.
    #[serde(deserialize_with = "one_or_more")]
    pub aud: Vec<String>,
    #[serde(default)]
    pub algs: Option<Vec<Alg>>,
    /// A public key in PEM, a JWK, or the secret of HS256.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// A set of keys: a file, or where it is fetched.
    #[serde(default)]
    pub jwks: Option<String>,
    /// How often a set is fetched again: `5m`.
    #[serde(default, deserialize_with = "duration")]
    pub jwks_refresh: Option<Duration>,
    #[serde(default = "operator")]
    pub roles_max: Role,
    #[serde(default)]
    pub claims: ClaimNames,
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    #[serde(default)]
    pub default_role: Option<Role>,
}

/// Where in a token things stand: a claim of that name, else a path with dots.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimNames {
    pub user: String,
    pub role: String,
    pub filter: String,
    pub hide: String,
    pub task_types: String,
    pub queues: String,
}

impl Default for ClaimNames {
    fn default() -> ClaimNames {
        ClaimNames {
            user: "sub".into(),
            role: "taskhub.role".into(),
            filter: "taskhub.filter".into(),
            hide: "taskhub.hide".into(),
            task_types: "taskhub.task_types".into(),
            queues: "taskhub.queues".into(),
        }
    }
}

fn operator() -> Role {
    Role::Operator
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text, or a list of texts")]
    enum Texts {
        One(String),
        More(Vec<String>),
    }
    Ok(match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::More(texts) => texts,
    })
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let read = humantime::parse_duration(&text);
    read.map(Some).map_err(|why| serde::de::Error::custom(format_args!("{why} (such as 5m is expected, not {text:?})")))
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    KeyFile(PathBuf),
    SetFile(PathBuf),
    Url { url: reqwest::Url, refresh: Duration },
}

impl AuthConfig {
    /// Reads the table `auth` of a file; or what is wrong with it.
    pub fn read(table: toml::Table) -> Result<AuthConfig, String> {
        let read = Strict::<AuthConfig>::deserialize(toml::Value::Table(table));
        let Strict(config) = read.map_err(|why| format!("auth: {}", why.to_string().trim_end()))?;
        config.jwt.iter().try_for_each(JwtIssuer::check)?;
        Ok(config)
    }

    /// Makes paths in a table `auth` those that they are seen from a folder.
    pub fn seen_from(table: &mut toml::Table, folder: &Path) {
        let issuers = table.get_mut("jwt").and_then(toml::Value::as_array_mut).into_iter().flatten();
        for issuer in issuers.filter_map(toml::Value::as_table_mut) {
            for key in ["key_file", "jwks"] {
                let Some(toml::Value::String(place)) = issuer.get_mut(key) else { continue };
                seen_from(place, folder);
            }
        }
    }
}

/// Makes the place of keys, if it is a path, the one that it is seen from a folder.
pub fn seen_from(place: &mut String, folder: &Path) {
    if !is_url(place) {
        *place = folder.join(&*place).to_string_lossy().into_owned();
    }
}

fn is_url(text: &str) -> bool {
    text.contains("://")
}

impl JwtIssuer {
    /// With this `iss` and one of these as `aud`, and all else as it is where nothing is said. Its keys are still to be named.
    pub fn new(iss: &str, aud: &[String]) -> JwtIssuer {
        JwtIssuer {
            iss: iss.to_owned(),
            aud: aud.to_vec(),
            algs: None,
            key_file: None,
            jwks: None,
            jwks_refresh: None,
            roles_max: operator(),
            claims: ClaimNames::default(),
            roles: BTreeMap::new(),
            default_role: None,
        }
    }

    /// Refuses what cannot work. Reads no file.
    pub fn check(&self) -> Result<(), String> {
        self.parts().map(drop)
    }

    /// The rules for its tokens, and where its keys are.
    pub(super) fn parts(&self) -> Result<(JwtRules, Source), String> {
        let wrong = |why: &str| format!("auth.jwt of {:?}: {why}", self.iss);
        if self.iss.is_empty() {
            return Err("auth.jwt: iss must not be empty".into());
        }
        if self.aud.is_empty() || self.aud.iter().any(String::is_empty) {
            return Err(wrong("aud must be a text, or a list of texts, that is not empty"));
        }
        if self.algs.as_ref().is_some_and(Vec::is_empty) {
            return Err(wrong("algs must name at least one algorithm"));
        }
        let ClaimNames { user, role, filter, hide, task_types, queues } = &self.claims;
        let names = [user, role, filter, hide, task_types, queues];
        if names.into_iter().any(String::is_empty) {
            return Err(wrong("the names of claims must not be empty"));
        }
        let above = |role: &Role| *role > self.roles_max;
        if self.default_role.as_ref().is_some_and(above) || self.roles.values().any(above) {
            return Err(wrong(&format!(
                "roles and default_role must be at most roles_max, which is {}",
                self.roles_max
            )));
        }
        let source = match (&self.key_file, &self.jwks) {
            (Some(path), None) => Source::KeyFile(path.clone()),
            (None, Some(text)) if is_url(text) => {
                Source::Url { url: fetched(text).map_err(|why| wrong(&why))?, refresh: self.refresh().map_err(wrong)? }
            }
            (None, Some(path)) => Source::SetFile(path.into()),
            _ => return Err(wrong("either key_file or jwks is needed")),
        };
        if self.jwks_refresh.is_some() && !matches!(source, Source::Url { .. }) {
            return Err(wrong("jwks_refresh is for a jwks that is a URL; files are looked at by themselves"));
        }
        let rules = JwtRules {
            issuer: self.iss.as_str().into(),
            audience: self.aud.clone(),
            algs: self.algs.clone(),
            roles_max: self.roles_max,
            user_claim: user.clone(),
            role_claim: role.clone(),
            filter_claim: filter.clone(),
            hide_claim: hide.clone(),
            task_types_claim: task_types.clone(),
            queues_claim: queues.clone(),
            roles: self.roles.clone(),
            default_role: self.default_role,
        };
        Ok((rules, source))
    }

    fn refresh(&self) -> Result<Duration, &'static str> {
        match self.jwks_refresh {
            None => Ok(REFRESH_DEFAULT),
            Some(refresh) if refresh < REFRESH_MIN => Err("jwks_refresh must be at least 5s"),
            Some(refresh) => Ok(refresh),
        }
    }
}

/// Who can change what is fetched can make anyone an operator. So it comes over TLS, or from this machine.
fn fetched(text: &str) -> Result<reqwest::Url, String> {
    let url = reqwest::Url::parse(text).map_err(|why| format!("jwks: {why}"))?;
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        "http" => Err("jwks must be fetched over https: whoever stands between could make up keys".into()),
        scheme => Err(format!("jwks must be a file, or a URL of https, and not of {scheme}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AuthConfig, String> {
        let mut table: toml::Table = text.parse().unwrap();
        AuthConfig::seen_from(&mut table, Path::new("/etc/taskhub"));
        AuthConfig::read(table)
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let text = "[[jwt]]\niss = \"https://id.example\"\naud = \"taskhub\"\njwks = \"https://id.example/keys\"";
        let issuer = read(text).unwrap().jwt.remove(0);
        assert_eq!((issuer.roles_max, issuer.default_role, &issuer.algs), (Role::Operator, None, &None));
        assert_eq!((&*issuer.claims.user, &*issuer.claims.role), ("sub", "taskhub.role"));
        let (_, source) = issuer.parts().unwrap();
        assert!(matches!(source, Source::Url { refresh: REFRESH_DEFAULT, .. }));
        let text = "[[jwt]]\niss = \"i\"\naud = [\"a\", \"b\"]\nkey_file = \"key.pem\"\nalgs = [\"RS256\"]\n\
            default_role = \"viewer\"\nroles_max = \"user\"\n[jwt.claims]\nuser = \"uid\"\n[jwt.roles]\nstaff = \"user\"";
        let config = read(text).unwrap();
        let issuer = &config.jwt[0];
        assert_eq!(issuer.key_file.as_deref(), Some(Path::new("/etc/taskhub/key.pem")));
        assert_eq!((&*issuer.claims.user, &*issuer.claims.role), ("uid", "taskhub.role"));
        assert_eq!((issuer.aud.len(), issuer.roles["staff"]), (2, Role::User));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let check = |more: &str, expected: &str| {
            let told = read(&format!("[[jwt]]\n{more}")).expect_err(more);
            assert!(told.contains(expected), "{more}: {told}");
        };
        let base = "iss = \"i\"\naud = \"a\"\n";
        check("aud = \"a\"\nkey_file = \"k\"", "missing field `iss`");
        check("iss = \"i\"\nkey_file = \"k\"", "missing field `aud`");
        check("iss = \"\"\naud = \"a\"\nkey_file = \"k\"", "iss must not be empty");
        check("iss = \"i\"\naud = []\nkey_file = \"k\"", "aud must be");
        check("iss = \"i\"\naud = 7\nkey_file = \"k\"", "a text, or a list of texts");
        check(base, "either key_file or jwks");
        check(&format!("{base}key_file = \"k\"\njwks = \"j\""), "either key_file or jwks");
        check(&format!("{base}jwks = \"http://id.example/keys\""), "over https");
        check(&format!("{base}jwks = \"ftp://id.example/keys\""), "not of ftp");
        check(&format!("{base}jwks = \"https://\""), "jwks:");
        check(&format!("{base}key_file = \"k\"\nalgs = [\"none\"]"), "HS256");
        check(&format!("{base}key_file = \"k\"\nalgs = []"), "at least one");
        check(&format!("{base}key_file = \"k\"\nkeyfile = \"k\""), "unknown field `keyfile`");
        check(&format!("{base}key_file = \"k\"\ndefault_role = \"admin\""), "roles_max");
        check(&format!("{base}key_file = \"k\"\n[jwt.roles]\nboss = \"admin\""), "roles_max");
        check(&format!("{base}key_file = \"k\"\n[jwt.roles]\nboss = \"root\""), "viewer");
        check(&format!("{base}key_file = \"k\"\njwks_refresh = \"5m\""), "jwks_refresh is for");
        check(&format!("{base}jwks = \"https://i/k\"\njwks_refresh = \"1s\""), "at least 5s");
        check(&format!("{base}jwks = \"https://i/k\"\njwks_refresh = \"soon\""), "such as 5m");
        for here in ["http://127.0.0.1:9/k", "http://localhost/k", "http://[::1]/k"] {
            assert!(read(&format!("[[jwt]]\n{base}jwks = \"{here}\"")).is_ok());
        }
    }
}
