"""Who started this process, by the variables that torchrun, srun or an earlier job has left in its environment."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from minitx.distributed import cluster
from minitx.distributed.cluster import expand_hosts, outer_exit_code, outer_ranks
from minitx.utils.errors import Exit, UserError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "job", "WORLD_SIZE": "16", "RANK": "9", "LOCAL_WORLD_SIZE": "8", "LOCAL_RANK": "1",
            "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
SRUN = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "n[01-02]"}

Environ = Callable[[dict[str, str]], dict[str, str]]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Environ:
    """Put variables in the place of this process's own."""

    def replace(env: dict[str, str]) -> dict[str, str]:
        env = dict(env)
        monkeypatch.setattr(cluster, "os", SimpleNamespace(environ=env))
        return env

    return replace


# --- a whole set


def test_torchrun_starts_ranks(environ: Environ, capsys: pytest.CaptureFixture[str]) -> None:
    env = environ(TORCHRUN)
    assert outer_ranks() == 16
    assert (env, capsys.readouterr().err) == (TORCHRUN, "")


def test_srun_starts_ranks_which_get_torchruns_names(environ: Environ, capsys: pytest.CaptureFixture[str]) -> None:
    env = environ(SRUN)
    assert outer_ranks() == 8
    place = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "n01"}
    assert env == SRUN | place | {"MASTER_PORT": env["MASTER_PORT"]}
    assert 10_000 <= int(env["MASTER_PORT"]) < 60_016
    assert capsys.readouterr().err == ""


def test_a_meeting_place_that_the_user_names_is_kept(environ: Environ) -> None:
    env = environ(SRUN | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4000", "SLURM_STEP_NODELIST": "?"})
    assert outer_ranks() == 8
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("10.0.0.7", "4000")


@pytest.mark.parametrize("env", [{}, SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, {"SLURM_PROCID": "0"}])
def test_one_process_is_no_rank_and_nothing_is_said(environ: Environ, env: dict[str, str],
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    assert environ(env) == env
    assert outer_ranks() == 0
    assert capsys.readouterr().err == ""


def test_hosts_with_unequally_many_tasks_are_refused(environ: Environ) -> None:
    environ(SRUN | {"SLURM_STEP_TASKS_PER_NODE": "5,3"})
    with pytest.raises(UserError) as caught:
        outer_ranks()
    assert str(caught.value) == ("SLURM_STEP_TASKS_PER_NODE=5,3: hosts need equally many tasks; set "
                                 "--ntasks-per-node")


# --- parts of one


@pytest.mark.parametrize("left_over", [
    {"RANK": "1"}, {"LOCAL_RANK": "3"}, {"SLURM_PROCID": "2"}, {"LOCAL_WORLD_SIZE": "2"}, {"LOCAL_WORLD_SIZE": ""},
    {"TORCHELASTIC_RUN_ID": "job"}, {"RANK": "1", "WORLD_SIZE": "2"}, {"GROUP_WORLD_SIZE": "2", "NODE_RANK": "1"},
    {name: value for name, value in TORCHRUN.items() if name.endswith(("_ID", "RANK"))},
    {name: value for name, value in TORCHRUN.items() if not name.startswith(("MASTER", "TORCHELASTIC"))},
])
def test_what_is_left_over_is_removed_and_named(environ: Environ, left_over: dict[str, str],
                                                capsys: pytest.CaptureFixture[str]) -> None:
    env = environ({"HOME": "/home/a", "SLURM_JOB_ID": "1"} | left_over)
    assert outer_ranks() == 0
    assert env == {"HOME": "/home/a", "SLURM_JOB_ID": "1"}
    said = capsys.readouterr().err
    assert said.startswith("minitx: warning: ignored ")
    assert said.endswith(": left over from another job, for neither torchrun nor srun started this process\n")
    assert said.count("\n") == 1
    assert all(f"{name}={value or repr('')}" in said for name, value in left_over.items())
    assert outer_ranks() == 0
    assert capsys.readouterr().err == "", "it is said once"


@pytest.mark.parametrize("broken", [
    *({name: ""} for name in TORCHRUN), {"RANK": "16"}, {"RANK": "-1"}, {"LOCAL_RANK": "8"}, {"WORLD_SIZE": "many"},
    {"LOCAL_WORLD_SIZE": "17"}, {"MASTER_PORT": "x"}])
def test_a_set_that_is_not_whole_makes_no_rank(environ: Environ, broken: dict[str, str]) -> None:
    env = environ(TORCHRUN | broken)
    assert outer_ranks() == 0
    assert not set(cluster.OF_A_RANK) & set(env)


@pytest.mark.parametrize("missing", [name for name in SRUN if name != "SLURM_STEP_NUM_TASKS"])
def test_a_step_that_does_not_say_all_makes_no_rank(environ: Environ, missing: str) -> None:
    environ({name: value for name, value in SRUN.items() if name != missing})
    assert outer_ranks() == 0


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("5", 0)])
def test_srun_counts_for_more_than_what_is_left_over(environ: Environ, capsys: pytest.CaptureFixture[str], rank: str,
                                                     lines: int) -> None:
    env = environ(SRUN | {"SLURM_PROCID": rank, "RANK": "7", "GROUP_WORLD_SIZE": "2", "WORLD_SIZE": "8"})
    assert outer_ranks() == 8
    assert (env["RANK"], env["SLURM_PROCID"], "GROUP_WORLD_SIZE" in env) == (rank, rank, False)
    said = capsys.readouterr().err
    assert said == lines * ("minitx: warning: ignored RANK=7, GROUP_WORLD_SIZE=2: left over from another job, for srun "
                            "alone started this process\n")


# --- lists of hosts


@pytest.mark.parametrize(("listed", "hosts"), [
    ("gpu-3", "gpu-3"), ("a,b", "a b"), ("n[01-04,07]", "n01 n02 n03 n04 n07"), ("x[7,9]", "x7 x9"),
    ("host-[10-12]", "host-10 host-11 host-12"), ("n[08-10]", "n08 n09 n10"), ("n[9-11],m", "n9 n10 n11 m"),
    ("rack[1-2]node[3-4]", "rack1node3 rack1node4 rack2node3 rack2node4"),
    ("a[1-2]b[3,5]c", "a1b3c a1b5c a2b3c a2b5c"), ("n[1-2].example.org,z", "n1.example.org n2.example.org z")])
def test_hosts_of_a_list(listed: str, hosts: str) -> None:
    assert list(expand_hosts(listed)) == hosts.split()


@pytest.mark.parametrize("listed", ["n[1-", "n[a-b]", "n1,,n2", "n[]", "n]1[", "n1,", "n 1"])
def test_another_list_is_refused(listed: str) -> None:
    with pytest.raises(UserError) as caught:
        list(expand_hosts(listed))
    assert str(caught.value) == (f"SLURM_STEP_NODELIST={listed}: not a list of hosts like n[01-04,07]; set MASTER_ADDR "
                                 "to the first host")


# --- the end


@pytest.mark.parametrize(("env", "code", "left_with"), [
    (TORCHRUN, Exit.TERMINATED, Exit.OK), (TORCHRUN, Exit.INTERRUPTED, Exit.OK), (TORCHRUN, Exit.DATA, Exit.DATA),
    (SRUN, Exit.TERMINATED, Exit.TERMINATED)])
def test_torchrun_does_not_restart_what_was_stopped(environ: Environ, env: dict[str, str], code: Exit,
                                                    left_with: Exit) -> None:
    environ(env)
    assert outer_exit_code(code) == left_with
