"""The algebra of deployments: what `without` and `with_members` keep, for any members."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from abair_registry.db.snapshot import DeploymentSnapshot, Member

PLUGINS = ("noise", "rain", "haze", "blur")
LABELS = tuple("abcdefgh")
HYPOTHESIS = settings(derandomize=True, deadline=None)


def member(label: str, plugin: str, number: int) -> Member:
    return Member(label, number, plugin, f"abair-{plugin}", "1.0", "0" * 64, "1" * 64, None)


labels = st.lists(st.sampled_from(LABELS), unique=True)
plugins = st.sampled_from(PLUGINS)


@st.composite
def deployments(draw: st.DrawFn) -> DeploymentSnapshot:
    """Deployments whose labels are unique, each of any plugin."""
    members = tuple(member(label, draw(plugins), number) for number, label in enumerate(draw(labels), 1))
    return DeploymentSnapshot(1, 1, "a" * 64, "b" * 64, "c" * 64, members, None)


@st.composite
def changes(draw: st.DrawFn) -> tuple[DeploymentSnapshot, str, tuple[Member, ...]]:
    """A deployment, a plugin, and members of it: none has a label that another plugin serves, as `taken` ensures."""
    deployment, plugin = draw(deployments()), draw(plugins)
    others = {one.label for one in deployment.members if one.plugin != plugin}
    chosen = [label for label in draw(labels) if label not in others]
    return deployment, plugin, tuple(member(label, plugin, 100 + place) for place, label in enumerate(chosen))


@HYPOTHESIS
@given(deployments(), plugins)
def test_without_a_plugin_only_its_members_go_and_the_others_keep_their_order(
    deployment: DeploymentSnapshot, plugin: str
) -> None:
    rest = deployment.without(plugin)
    assert plugin not in rest.plugins
    assert rest.members == tuple(one for one in deployment.members if one.plugin != plugin)
    assert rest.without(plugin) == rest
    assert replace(rest, members=deployment.members) == deployment
    if plugin not in deployment.plugins:
        assert rest == deployment


@HYPOTHESIS
@given(deployments(), plugins, plugins)
def test_plugins_go_in_any_order(deployment: DeploymentSnapshot, one: str, other: str) -> None:
    assert deployment.without(one).without(other) == deployment.without(other).without(one)


@HYPOTHESIS
@given(changes())
def test_with_members_the_labels_are_unique_and_the_plugin_has_exactly_these(
    change: tuple[DeploymentSnapshot, str, tuple[Member, ...]],
) -> None:
    deployment, plugin, members = change
    made = deployment.with_members(plugin, members)
    assert len(set(made.labels)) == len(made.labels)
    assert made.labels[-1] == "clean"
    assert {one for one in made.members if one.plugin == plugin} == set(members)
    assert made.without(plugin) == deployment.without(plugin)
    assert made.with_members(plugin, members) == made


@HYPOTHESIS
@given(changes())
def test_with_members_a_label_that_stays_keeps_its_place_and_new_ones_come_last(
    change: tuple[DeploymentSnapshot, str, tuple[Member, ...]],
) -> None:
    deployment, plugin, members = change
    made = deployment.with_members(plugin, members)
    stay = [label for label in deployment.labels if label in made.labels]
    come = [one.label for one in members if one.label not in deployment.labels]
    assert list(made.labels) == [*stay[:-1], *come, "clean"]


@HYPOTHESIS
@given(deployments(), plugins)
def test_a_plugin_that_goes_and_comes_back_serves_the_same_labels(deployment: DeploymentSnapshot, plugin: str) -> None:
    theirs = tuple(one for one in deployment.members if one.plugin == plugin)
    back = deployment.without(plugin).with_members(plugin, theirs)
    assert set(back.members) == set(deployment.members)
    assert deployment.with_members(plugin, theirs) == deployment
