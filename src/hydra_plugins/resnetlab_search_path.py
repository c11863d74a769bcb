"""The user's own folder of presets and option files, behind the lab's in Hydra's search path, in every process."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnFiles(SearchPathPlugin):
    """Adds it to the lab's search path, and leaves those of other applications alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from resnetlab.config.option_files import conf_dir, own_conf_dir

        paths = [str(element.path).removeprefix("file://") for element in search_path.get_path()]
        if str(conf_dir()) in paths and (own := own_conf_dir()):
            search_path.append("own", f"file://{own}")
