# Settings of `make lab`. JupyterLab reads this file because the Makefile names it.
c = get_config()  # noqa: F821

# Nothing leaves this machine: no news, no look for updates, no catalogue of extensions.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

# On this machine only; the token that Jupyter makes at start stays on.
c.ServerApp.ip = "localhost"
c.ServerApp.allow_remote_access = False
