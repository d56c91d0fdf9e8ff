import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklgap.remedies import SAM, Augmentation, EntropySGD, Proximal, Remedy, check_remedies, check_together
from sklgap.remedies._check import SHORTHANDS
from tests.tiny import blobs, same_weights, small


def test_names():
    proximal, flip, other = Proximal(), Augmentation(), Proximal()
    named = check_remedies([proximal, ("mirror", flip), other, Proximal()])
    assert [name for name, _ in named] == ["proximal", "mirror", "proximal_2", "proximal_3"]
    assert [remedy for _, remedy in named[:3]] == [proximal, flip, other]
    assert check_remedies(None) == check_remedies(()) == []
    assert [name for name, _ in check_remedies(r for r in [proximal])] == ["proximal"]


def test_a_name_twice():
    with pytest.raises(ValueError, match="remedies must have different names; got 'a' twice"):
        check_remedies([("a", Proximal()), ("a", Augmentation())])


@pytest.mark.parametrize(("remedy", "shown"), [(Proximal(), r"Proximal\(\)"), ("sam", "'sam'")])
def test_a_remedy_alone(remedy, shown):
    sentence = f"remedies must be a sequence of Remedy objects; got {shown} alone; write \\({shown},\\)"
    with pytest.raises(TypeError, match=sentence):
        check_remedies(remedy)


@pytest.mark.parametrize("remedies", [[Proximal], [3], [("a", "b")], [("a", "sam")], [(1, Proximal())], [("a",)]])
def test_no_remedies(remedies):
    with pytest.raises(TypeError, match=r"remedies must hold Remedy objects or pairs \(name, Remedy\); got "):
        check_remedies(remedies)


@pytest.mark.parametrize("remedies", [5, 0.5, Proximal])
def test_no_sequence(remedies):
    with pytest.raises(TypeError, match="remedies must be a sequence of Remedy objects; got "):
        check_remedies(remedies)


# -- shorthands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shorthand", SHORTHANDS)
def test_a_shorthand_is_the_remedy_with_its_defaults_under_the_name_of_its_class(shorthand):
    ((name, remedy),) = check_remedies([shorthand])
    assert name == shorthand
    remedy.check()
    if shorthand == "asam":
        assert remedy.get_params() == SAM(rho=2.0, adaptive=True).get_params()
    else:
        assert remedy.get_params() == type(remedy)().get_params()
        assert check_remedies([type(remedy)()])[0][0] == shorthand


def test_every_remedy_has_a_shorthand():
    assert {type(make()) for make in SHORTHANDS.values()} == {
        c for c in Remedy.__subclasses__() if c.__module__.startswith("sklgap.") and not c.__name__.startswith("_")
    }


@pytest.mark.parametrize("written", ["EntropySGD", "entropy_sgd", "Entropy-SGD"])
def test_spelling(written):
    ((name, remedy),) = check_remedies([written])
    assert (name, type(remedy)) == ("entropysgd", EntropySGD)


def test_shorthands_beside_objects():
    named = check_remedies(["sam", ("near", Proximal()), Augmentation(), "augmentation"])
    assert [name for name, _ in named] == ["sam", "near", "augmentation", "augmentation_2"]


@pytest.mark.parametrize("name", ["sma", "", "paper", "none"])
def test_an_unknown_shorthand(name):
    allowed = (
        "adversarial, asam, augmentation, batchaugmentation, entropysgd, gradientpenalty, labelsmoothing, mixup, "
        "proximal, sam, samplenoise, stability"
    )
    with pytest.raises(ValueError, match=f"remedies must hold Remedy objects or names among {allowed}; got {name!r}"):
        small(remedies=[name]).fit(*blobs())


def test_a_fit_by_shorthand():
    X, y = blobs()
    model = small(remedies=["sam"]).fit(X, y)
    assert same_weights(model, small(remedies=[SAM()]).fit(X, y))
    assert not same_weights(model, small().fit(X, y))
    assert model.remedies == ["sam"]


def test_parameters_of_a_shorthand():
    given = ["sam", ("near", Proximal())]
    model = small(remedies=given)
    assert model.get_params()["remedies__sam__rho"] == 0.05
    copied = clone(model).set_params(remedies__sam__rho=0.2, remedies__sam__adaptive=True)
    assert copied.get_params()["remedies__sam__rho"] == 0.2
    assert clone(copied).get_params()["remedies__sam__adaptive"] is True
    assert given[0] == "sam"
    assert model.get_params()["remedies__sam__rho"] == 0.05
    X, y = blobs()
    assert same_weights(copied.fit(X, y), small(remedies=[SAM(0.2, adaptive=True), Proximal()]).fit(X, y))


def test_a_shorthand_and_a_parameter_of_it_at_once():
    model = small().set_params(remedies=["sam"], remedies__sam__rho=0.3)
    assert model.get_params()["remedies__sam__rho"] == 0.3
    assert model.set_params(remedies=["asam"]).get_params()["remedies__asam__rho"] == 2.0
    with pytest.raises(ValueError, match="has no parameter 'remedies__sam__rho'"):
        model.set_params(remedies__sam__rho=0.3)


def test_a_search_over_shorthands_and_over_a_parameter_of_one():
    X, y = blobs()
    grid = [{"remedies": [(), ["sam"], ["asam"]]}, {"remedies": [["sam"]], "remedies__sam__rho": [0.1, 0.2]}]
    search = GridSearchCV(small(max_epochs=1), grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 5


# -- what cannot stand together ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shorthand", sorted(set(SHORTHANDS) - {"augmentation", "proximal"}))
def test_two_of_a_kind(shorthand):
    (kind,) = {type(remedy).__name__ for _, remedy in check_remedies([shorthand])}
    with pytest.raises(ValueError, match=f"^remedies must hold at most one {kind}; got 2.$"):
        small(remedies=[shorthand, shorthand]).fit(*blobs())


def test_two_of_a_kind_by_other_ways():
    class Sharper(SAM):
        pass

    for remedies in ([SAM(), Sharper()], [Sharper(), SAM()], [Sharper(), Sharper()]):
        with pytest.raises(ValueError, match=r"must hold at most one (SAM|Sharper); got 2\.$"):
            check_together(remedies)


def test_different_kinds_and_repeatable_ones_stand_together():
    class Own(Remedy):
        pass

    check_together([check_remedies([name])[0][1] for name in SHORTHANDS if name != "asam"])
    check_together([Augmentation(), Augmentation(flip=False), Own(), Own()])
    X, y = blobs()  # penalties add up
    twice = small(proximal_lambda=0.1, remedies=[Proximal(0.25)]).fit(X, y)
    assert same_weights(twice, small(remedies=[Proximal(0.25), Proximal(0.1)]).fit(X, y))
    assert not same_weights(twice, small(proximal_lambda=0.25).fit(X, y))
