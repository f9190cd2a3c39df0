"""Makes tokens with PyJWT and openssl, good ones and bad ones, and the keys that they are checked with.

Called with a folder. Writes keys there, and one line for each token: what it is, whether it is good, and its text.
"""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

folder = Path(sys.argv[1])
now = int(time.time())

keys = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
secret = b"a secret of the application that is long enough for HS256"
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo

(folder / "HS256").write_bytes(secret + b"\n")
public = {}
for alg, key in keys.items():
    public[alg] = key.public_key().public_bytes(PEM, SPKI)
    (folder / alg).write_bytes(public[alg])
    (folder / f"{alg}.private").write_bytes(key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
pkcs1 = keys["RS256"].public_key().public_bytes(PEM, serialization.PublicFormat.PKCS1)
(folder / "PKCS1").write_bytes(pkcs1)


def jwk(of, **more):
    made = jwt.get_algorithm_by_name(of).to_jwk(keys[of].public_key(), as_dict=True)
    return {**{name: value for name, value in made.items() if name != "key_ops"}, **more}


in_set = [jwk(alg, kid=f"key {alg}", use="sig", alg=alg) for alg in keys]
# What is not for signatures is passed over.
in_set.append(jwk("RS256", kid="encrypts", use="enc"))
in_set.append({"kty": "AKP", "alg": "ML-DSA-44", "kid": "of the future", "pub": "AAAA"})
(folder / "SET").write_text(json.dumps({"keys": in_set}))


def claims(issuer, **changes):
    all = {"iss": issuer, "aud": "taskhub", "sub": "u1", "iat": now, "exp": now + 600, "taskhub": {"role": "user"}}
    all.update(changes)
    return {name: value for name, value in all.items() if value is not None}


def say(what, good, token):
    print(json.dumps([what, good, token]))


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header, payload, sign):
    text = f"{part(header)}.{part(payload)}"
    return f"{text}.{part(sign(text.encode()))}"


def hmac_with(key):
    return lambda text: hmac.new(key, text, hashlib.sha256).digest()


def key_of(alg):
    return secret if alg == "HS256" else keys[alg]


# Issuers are called as the files of their keys.
for alg in ["HS256", "RS256", "ES256", "EdDSA"]:
    key = key_of(alg)
    make = lambda payload, **options: jwt.encode(payload, key, algorithm=alg, **options)
    say(f"{alg}", True, make(claims(alg)))
    say(f"{alg} with a kid", True, make(claims(alg), headers={"kid": "any"}))
    say(f"{alg} as at+jwt", True, make(claims(alg), headers={"typ": "at+jwt"}))
    say(f"{alg} with aud as a list", True, make(claims(alg, aud=["other", "taskhub"])))
    say(f"{alg} within the leeway", True, make(claims(alg, exp=now - 10, nbf=now + 10)))
    say(f"{alg} without iat", True, make(claims(alg, iat=None)))
    say(f"{alg} with a fraction", True, make(claims(alg, exp=now + 60.5)))
    say(f"{alg} expired", False, make(claims(alg, exp=now - 60)))
    say(f"{alg} without exp", False, make(claims(alg, exp=None)))
    say(f"{alg} of the future", False, make(claims(alg, nbf=now + 120)))
    say(f"{alg} issued in the future", False, make(claims(alg, iat=now + 120)))
    say(f"{alg} for another", False, make(claims(alg, aud="other")))
    say(f"{alg} for nobody", False, make(claims(alg, aud=None)))
    say(f"{alg} from another", False, make(claims("https://evil.example")))
    say(f"{alg} from nobody", False, make(claims(alg, iss=None)))
    say(f"{alg} without sub", False, make(claims(alg, sub=None)))
    say(f"{alg} with a wrong role", False, make(claims(alg, taskhub={"role": "root"})))
    say(f"{alg} with too much of a role", False, make(claims(alg, taskhub={"role": "admin"})))
    say(f"{alg} with crit", False, make(claims(alg), headers={"crit": ["exp"], "exp": now}))
    say(f"{alg} as a logout token", False, make(claims(alg), headers={"typ": "logout+jwt"}))
    say(f"{alg} that is huge", False, make(claims(alg, more="x" * 9_000)))
    # A good token, altered.
    head, body, signature = make(claims(alg)).split(".")
    say(f"{alg} unsigned", False, f"{head}.{body}.")
    say(f"{alg} without a signature", False, f"{head}.{body}")
    say(f"{alg} with padding", False, f"{head}.{body}.{signature}=")
    say(f"{alg} with a space", False, f"{head}.{body}. {signature}")
    say(f"{alg} with another body", False, f"{head}.{part(claims(alg, sub='u2'))}.{signature}")
    say(f"{alg} in five parts", False, f"{head}.{body}.{signature}.{body}.{signature}")
    say(f"{alg} of zeros", False, f"{head}.{body}.{part(bytes(len(base64.urlsafe_b64decode(signature + '=='))))}")
    # What PyJWT makes of a claim that is no text.
    sign = hmac_with(secret) if alg == "HS256" else (lambda text: raw_signature(alg, text))

    def raw_signature(alg, text):
        return jwt.get_algorithm_by_name(alg).sign(text, keys[alg])

    header = {"alg": alg, "typ": "JWT"}
    say(f"{alg} by hand", True, by_hand(header, claims(alg), sign))
    say(f"{alg} with a number as sub", False, by_hand(header, claims(alg, sub=7), sign))
    twice = json.dumps(claims(alg))[:-1] + f', "sub": "u2"}}'
    say(f"{alg} with sub twice", False, by_hand(header, twice.encode(), sign))
    within = json.dumps(claims(alg)).replace('{"role"', '{"role": "admin", "role"')
    say(f"{alg} with a role twice", False, by_hand(header, within.encode(), sign))
    heads = f'{{"alg": "none", "alg": "{alg}"}}'.encode()
    say(f"{alg} with alg twice", False, by_hand(heads, claims(alg), sign))
    say(f"{alg} with a list as payload", False, by_hand(header, [claims(alg)], sign))
    # The algorithm is not for the token to say.
    say(f"{alg} as none", False, jwt.encode(claims(alg), None, algorithm="none"))
    say(f"{alg} as None", False, by_hand({"alg": "None"}, claims(alg), lambda text: b""))
    say(f"{alg} as nOnE", False, by_hand({"alg": "nOnE"}, claims(alg), lambda text: b""))
    for other in keys:
        wrong = jwt.encode(claims(alg), keys[other], algorithm=other)
        say(f"{alg} signed as {other}", other == alg, wrong)
    for name, confused in [("PEM", public.get(alg)), ("bare PEM", public.get(alg, b"").strip())]:
        if confused:
            say(f"{alg} signed with its {name}", False, by_hand({"alg": "HS256"}, claims(alg), hmac_with(confused)))

say("PKCS1", True, jwt.encode(claims("PKCS1"), keys["RS256"], algorithm="RS256"))
say("RS512", False, jwt.encode(claims("RS256"), keys["RS256"], algorithm="RS512"))
say("PS256", False, jwt.encode(claims("RS256"), keys["RS256"], algorithm="PS256"))
say("HS512", False, jwt.encode(claims("HS256"), secret * 2, algorithm="HS512"))
say("another secret", False, jwt.encode(claims("HS256"), secret[::-1], algorithm="HS256"))
say("the secret with its line's end", False, jwt.encode(claims("HS256"), secret + b"\n", algorithm="HS256"))

for alg in keys:
    kid = {"kid": f"key {alg}"}
    say(f"{alg} of a set", True, jwt.encode(claims("SET"), keys[alg], algorithm=alg, headers=kid))
    say(f"{alg} of a set, without a kid", True, jwt.encode(claims("SET"), keys[alg], algorithm=alg))
    others = [other for other in keys if other != alg]
    for other in others:
        named = {"kid": f"key {other}"}
        say(f"{alg} of a set, as {other}'s", False, jwt.encode(claims("SET"), keys[alg], algorithm=alg, headers=named))
say("a key that encrypts", False, jwt.encode(claims("SET"), keys["RS256"], algorithm="RS256", headers={"kid": "encrypts"}))
for trick in ["", "../../../../dev/null", "/dev/null", "key RS256\x00", "' UNION SELECT 'x", "key rs256", "*"]:
    token = jwt.encode(claims("SET"), keys["RS256"], algorithm="RS256", headers={"kid": trick})
    say(f"kid {trick!r}", False, token)
evil = ed25519.Ed25519PrivateKey.generate()
evil_jwk = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(evil.public_key()))
for more in [{"jwk": evil_jwk}, {"jku": "http://127.0.0.1:9/set"}, {"x5u": "http://127.0.0.1:9/cert"}, {"x5c": ["AAAA"]}]:
    say(f"a key that comes along: {list(more)}", False, jwt.encode(claims("SET"), evil, algorithm="EdDSA", headers=more))


# What openssl signs.
def openssl(alg, text):
    (folder / "text").write_bytes(text)
    private = str(folder / f"{alg}.private")
    if alg == "EdDSA":
        how = ["pkeyutl", "-sign", "-rawin", "-inkey", private, "-in", str(folder / "text")]
    else:
        how = ["dgst", "-sha256", "-sign", private, str(folder / "text")]
    return subprocess.run(["openssl", *how], check=True, capture_output=True).stdout


def fixed(der):
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


say("openssl RS256", True, by_hand({"alg": "RS256"}, claims("RS256"), lambda text: openssl("RS256", text)))
say("openssl EdDSA", True, by_hand({"alg": "EdDSA"}, claims("EdDSA"), lambda text: openssl("EdDSA", text)))
say("openssl ES256", True, by_hand({"alg": "ES256"}, claims("ES256"), lambda text: fixed(openssl("ES256", text))))
# JWS wants two numbers side by side, and not what openssl makes.
say("openssl ES256 in DER", False, by_hand({"alg": "ES256"}, claims("ES256"), lambda text: openssl("ES256", text)))
