"""``python -m pmam_plugin.upstream PROBLEM ...``: s3prl's problems with this package's upstreams among those they know.

Everything after the module's name goes to ``s3prl.main`` as it is. With torchaudio 2.9 or newer, for which s3prl was
not made, the missing functions are put back first.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Register the upstreams, then run ``s3prl.main``."""
    from pmam_plugin.errors import InputError
    from pmam_plugin.upstream.compat import needs_shim, resampling_in_threads
    from pmam_plugin.upstream.registry import register

    try:
        register(shim=needs_shim())
        from s3prl.main import main as run

        with resampling_in_threads():
            run()
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; install it with pip install 'pmam-plugin[s3prl]'")
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
