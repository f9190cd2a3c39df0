//! Any text as the table `auth` of a hub's file: it is read, or refused in words.

use std::path::Path;

use taskhub::keys::{AuthConfig, JwtIssuer};

pub fn check(bytes: &[u8]) {
    let Some(mut table) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<toml::Table>().ok()) else {
        return;
    };
    AuthConfig::seen_from(&mut table, Path::new("/etc/taskhub"));
    match AuthConfig::read(table.clone()) {
        Ok(config) => {
            assert!(config.jwt.iter().all(|issuer| issuer.check().is_ok()));
            let is_safe = |issuer: &JwtIssuer| {
                let paths = issuer.key_file.iter().map(|path| path.is_absolute());
                paths.into_iter().all(|is_absolute| is_absolute) && !issuer.aud.is_empty()
            };
            assert!(config.jwt.iter().all(is_safe));
            assert_eq!(AuthConfig::read(table), Ok(config), "the same each time");
        }
        Err(why) => assert!(!why.is_empty()),
    }
}
