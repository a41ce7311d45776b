"""Put an exported folder on the Hugging Face hub."""

from pathlib import Path

from minitx.utils.errors import Exit, UserError


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload a folder as one commit, into a new repository or one that is there. Returns where it is

    Errors: `UserError` with the hub's reason, such as no token; the folder stays, and can be uploaded later.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Exported by minitx")
    except Exception as error:  # the library's own, and those of the library below it, which changed with versions
        reason = " ".join(str(error).split())
        raise UserError(f"--push {repository}: {reason}; {folder} is whole, and can go there later: "
                        f"hf upload {repository} {folder}", Exit.STORAGE) from error
    return str(url)
