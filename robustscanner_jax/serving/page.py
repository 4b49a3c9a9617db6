"""The page to drop images on: page.html beside this file. It loads nothing else."""

from importlib import resources

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def as_html(*, explains: bool) -> str:
    """Returns the page.

    Args:
      explains: whether the service can show where the network looked; the page then
        asks for that as well.
    """
    page = resources.files("robustscanner_jax.serving") / "page.html"
    return page.read_text("utf-8").replace("EXPLAINS", str(explains).lower(), 1)
