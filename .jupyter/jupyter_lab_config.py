# Settings of `make lab`. JupyterLab reads this file because the Makefile names it.
from pathlib import Path

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

c = get_config()  # noqa: F821

# Nothing leaves this machine: no news, no look for updates, no catalogue of extensions; and no question about them
# (settings/overrides.json).
c.LabApp.app_settings_dir = str(Path(__file__).parent / "settings")
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

# On this machine only; the token that Jupyter makes at start stays on.
c.ServerApp.ip = "localhost"
c.ServerApp.allow_remote_access = False


# A slider's answer is a burst of small messages. By default each waits until the browser has acknowledged the one
# before, up to 40 ms (Nagle's algorithm meeting delayed acknowledgements), and a slider moved quickly feels slow.
class PromptConnection(ZMQChannelsWebsocketConnection):
    """The usual connection between browser and kernel, sending small messages at once."""

    def connect(self):
        self.websocket_handler.set_nodelay(True)
        return super().connect()


c.ServerApp.kernel_websocket_connection_class = PromptConnection


# A saved widget cannot be shown again without its kernel: JupyterLab would write "Error displaying widget" in its place.
# So it is not saved; what is left is its title, or the picture that came with it.
def leave_widgets_out(model, **kwargs):
    if model["type"] != "notebook" or model["content"] is None:
        return
    for cell in model["content"]["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    model["content"]["metadata"].pop("widgets", None)


c.FileContentsManager.pre_save_hook = leave_widgets_out
