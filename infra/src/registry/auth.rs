//! How a registry asks for a password, and where that comes from.

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential, get_credential_from_reader};
use tokio::task;

use super::{Credentials, RegistryError};

/// What a 401 asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token of another server.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// From `WWW-Authenticate`.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut rest) = (None, None, rest);
        while let Some((name, more)) = rest.split_once('=') {
            let (value, more) = match more.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => more.split_once(',').unwrap_or((more, "")),
            };
            let field = match name.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => Some(&mut realm),
                "service" => Some(&mut service),
                _ => None,
            };
            if let Some(field) = field {
                *field = Some(value.to_owned());
            }
            rest = more;
        }
        Some(Self::Bearer { realm: realm?, service })
    }
}

impl Credentials {
    /// User and password for a registry, if there are some.
    pub(super) async fn of(&self, host: &str) -> Result<Option<(String, String)>, RegistryError> {
        let path = match self {
            Self::None => return Ok(None),
            Self::Docker(path) => path.clone(),
        };
        let to_look_up = host.to_owned();
        // A helper is a program, which may ask for anything.
        let found = task::spawn_blocking(move || match path {
            None => get_credential(&to_look_up),
            Some(path) => {
                let file = std::fs::File::open(path).map_err(|_| CredentialRetrievalError::ConfigReadError)?;
                get_credential_from_reader(std::io::BufReader::new(file), &to_look_up)
            }
        });
        let cannot = |what: &str| {
            Err(RegistryError::Denied(format!("it asks for a password, and Docker's configuration {what}")))
        };
        match found.await.unwrap_or(Err(CredentialRetrievalError::ConfigReadError)) {
            Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Some((user, password))),
            Ok(DockerCredential::IdentityToken(_)) => {
                cannot(&format!("has an identity token for `{host}`, which is not supported; log in with a password"))
            }
            Err(
                CredentialRetrievalError::NoCredentialConfigured
                | CredentialRetrievalError::ConfigNotFound
                | CredentialRetrievalError::ConfigReadError,
            ) => Ok(None),
            // What a helper said may hold what nobody should read.
            Err(_) => cannot(&format!("has one for `{host}` that cannot be read, or a helper that failed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
        };
        for (header, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a.example/token\",service=\"r\",scope=\"repository:a/b:pull,push\"",
                bearer("https://a.example/token", Some("r")),
            ),
            ("bearer realm=https://a.example/t, service=r", bearer("https://a.example/t", Some("r"))),
            ("Bearer error=\"x\", realm=\"https://a.example\"", bearer("https://a.example", None)),
            ("Bearer service=\"r\"", None),
            ("Bearer realm=\"unfinished", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }

    #[tokio::test]
    async fn passwords_come_from_dockers_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let docker = Credentials::Docker(Some(file.clone()));
        assert_eq!(docker.of("r.example").await.unwrap(), None, "no file is no password");
        // bWU6cHc= is `me:pw`.
        let auths = r#"{"auths": {"r.example:5000": {"auth": "bWU6cHc="}, "t.example": {"identitytoken": "s3cret"},
            "b.example": {"auth": "s3cret"}}}"#;
        std::fs::write(&file, auths).unwrap();
        assert_eq!(docker.of("r.example:5000").await.unwrap(), Some(("me".into(), "pw".into())));
        assert_eq!(docker.of("other.example").await.unwrap(), None);
        for host in ["t.example", "b.example"] {
            let error = docker.of(host).await.unwrap_err().to_string();
            assert!(error.contains(host) && !error.contains("s3cret"), "{error}");
        }
    }
}
