//! Any JSON as what a token says that is signed right, and as what is asked of a scoped token: who comes with it is never more than
//! there may be.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use taskhub::access::{
    Credential, Fingerprint, Jws, JwtRules, NewScoped, Principal, Right, Role, Sight, Signer, SigningKey,
};
use taskhub::task::{Name, Timestamp, read_strictly};

const NOW: i64 = 1_790_000_000_000;

pub fn check(bytes: &[u8]) {
    claims(bytes);
    scoped(bytes);
}

fn claims(bytes: &[u8]) {
    let text = format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(bytes));
    let Ok(jws) = Jws::read(&text) else { return };
    let rules = JwtRules {
        issuer: "i".into(),
        audience: vec!["a".into()],
        algs: None,
        roles_max: Role::Operator,
        user_claim: "sub".into(),
        role_claim: "taskhub.role".into(),
        filter_claim: "taskhub.filter".into(),
        hide_claim: "taskhub.hide".into(),
        task_types_claim: "taskhub.task_types".into(),
        queues_claim: "taskhub.queues".into(),
        roles: Default::default(),
        default_role: None,
    };
    let now = Timestamp::from_millis(NOW);
    let Ok(who) = rules.principal(&jws, Fingerprint::of(""), now) else { return };
    assert_eq!(jws.claimed_issuer().as_deref(), Ok("i"));
    assert!(who.role <= Role::Operator && !who.may(Right::Administer));
    assert!(who.role != Role::User || who.user_id.is_some());
    assert!(who.expires_at.is_some_and(|at| at > now));
    assert!(matches!(&who.credential, Credential::Jwt(signed) if !signed.subject.is_empty()));
}

fn scoped(bytes: &[u8]) {
    let Ok(new) = read_strictly::<NewScoped>(bytes) else { return };
    let now = Timestamp::from_millis(NOW);
    let key = SigningKey { kid: "k".into(), seed: "07".repeat(32), created_at: now };
    let signer = Signer::new(&key).expect("a key");
    for role in Role::ALL {
        let maker = Arc::new(Principal::new(role, Some(Name::new("u1")), Credential::Owner));
        let Ok(minted) = signer.mint(&maker, new.clone(), now) else { continue };
        let jws = Jws::read(minted.token.strip_prefix("ths_").expect("its prefix")).expect("what we wrote");
        let said = signer.verify(&jws, now).expect("what we signed");
        let who = said.principal(&signer, maker.clone()).expect("what we made");
        assert_eq!(who.rights.and(maker.rights), who.rights);
        for right in [Right::Mint, Right::Administer, Right::Work, Right::Change, Right::ChangeSettings, Right::SeeHub]
        {
            assert!(!who.may(right));
        }
        if let (Sight::Of(seen), Sight::Of(by_maker)) = (&who.sight, &maker.sight) {
            assert_eq!(seen.and(by_maker), **seen, "never more than its maker");
        }
        assert!(who.sight != Sight::All || maker.sight == Sight::All);
        assert!(signer.verify(&jws, minted.expires_at).is_err());
    }
}
