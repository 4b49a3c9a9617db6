"""Who may use the service: whoever sends its token."""

import hmac

from robustscanner_jax.serving.requests import CLOSE, Refused


def clean_token(token: str | None) -> str | None:
    """Returns the token without the white space around it; None and "" give None.

    A file or a secret often ends in a line feed, which no client can send.

    Raises:
      ValueError: no client could send this token; the message does not tell it.
    """
    if not token:
        return None
    token = token.strip()
    if not token or not (token.isascii() and token.isprintable()):
        raise ValueError("the token: expected printable ASCII, and not blanks alone")
    return token


def check_token(token: str, authorization: str) -> None:
    """Compares the header with the token.

    Raises:
      Refused: 401, it is not `Bearer TOKEN`.
    """
    if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        headers = CLOSE | {"WWW-Authenticate": "Bearer"}
        raise Refused(401, "expected Authorization: Bearer TOKEN", **headers)
