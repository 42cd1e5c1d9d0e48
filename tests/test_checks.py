"""Named variables: parts, joints, and errors that say what was expected."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

import vaereg
from vaereg._checks import Variable, check_varies, check_width, same_rows

Z = torch.arange(12.0).reshape(2, 6)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("z", [0, 1, 2, 3, 4, 5]),
        ("z[:2]", [0, 1]),
        ("z[2:]", [2, 3, 4, 5]),
        ("z[-2:]", [4, 5]),
        ("z[1:5:2]", [1, 3]),
        ("z[3]", [3]),
        ("z[-1]", [5]),
        ("z[0, 4]", [0, 4]),
        (" z [:2] ", [0, 1]),
    ],
)
def test_parts(text, columns):
    assert torch.equal(Variable(text, "term").values({"z": Z}), Z[:, columns])


def test_part_of_a_code_is_its_marginal():
    mean, logvar = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    prior = Normal(torch.randn(3, 2, 2), torch.ones(3, 2, 2))
    code = vaereg.gaussian((mean, logvar), prior=prior)
    (part,) = Variable("z[1:]", "term").codes({"z": code})
    assert torch.equal(part.value, code.value[:, 1:])
    assert torch.equal(part.q.mean, mean[:, 1:])
    torch.testing.assert_close(part.p.mean[0], prior.loc[1:])


def test_joint_is_flattened_and_concatenated():
    batch = {"z": torch.randn(4, 2, 3), "c": vaereg.deterministic(torch.randn(4, 5))}
    joint = Variable(("z", "c[:2]"), "term")
    expected = torch.cat((batch["z"].flatten(1), batch["c"].value[:, :2]), 1)
    assert torch.equal(joint.values(batch), expected)
    assert joint.text == "z+c[:2]" and joint.names == ("z", "c")


@pytest.mark.parametrize("text", ["z[", "z]", "z[a]", "z[1:2:3:4]", "z[::-1]", "z[]", ""])
def test_refused_texts(text):
    with pytest.raises(ValueError, match="expected a"):
        Variable(text, "term")


def test_refused_specs():
    for spec in ((), (1, 2)):
        with pytest.raises(TypeError, match="term: expected a variable name"):
            Variable(spec, "term")


def test_messages_name_the_variable():
    variable = Variable("latent", "term")
    with pytest.raises(ValueError, match=r"'latent' in the batch, got \['latnet'\]; did you mean"):
        variable.values({"latnet": Z})
    with pytest.raises(TypeError, match="mapping"):
        variable.values([Z])
    with pytest.raises(TypeError, match="'latent' to be a Code or a tensor, got list"):
        variable.values({"latent": [1.0]})
    with pytest.raises(ValueError, match=r"'latent' to be floating point.*labels\(latent"):
        variable.values({"latent": torch.zeros(3, dtype=torch.long)})
    with pytest.raises(ValueError, match=r"'latent' of shape \(B, D, ...\), got \(3,\)"):
        variable.values({"latent": torch.zeros(3)})
    for text in ("z[7]", "z[-7]", "z[6:]"):
        with pytest.raises(ValueError, match="inside of 'z' of width 6"):
            Variable(text, "term").values({"z": Z})
    with pytest.raises(ValueError, match=r"as many rows.*'z': 2, 'c': 3"):
        Variable(("z", "c"), "term").values({"z": Z, "c": torch.zeros(3, 1)})


def test_codes_need_a_posterior_and_a_prior():
    variable = Variable("z", "term")
    with pytest.raises(TypeError, match="'z' to be a Code with a posterior"):
        variable.codes({"z": Z})
    with pytest.raises(TypeError, match="'z' with a posterior q, got None"):
        variable.codes({"z": vaereg.deterministic(Z)})
    q = Independent(Normal(Z, torch.ones_like(Z)), 1)
    with pytest.raises(TypeError, match="'z' with a prior p, got None"):
        variable.codes({"z": vaereg.Code(Z, q)})
    full = MultivariateNormal(Z, torch.eye(6))
    with pytest.raises(TypeError, match="factorised posterior and prior to take a part of 'z'"):
        Variable("z[:2]", "term").codes({"z": vaereg.Code(Z, full, full)})
    categorical = vaereg.categorical(Z, 1.0)  # dim 1 is the simplex, which has no part
    with pytest.raises(TypeError, match="take a part of 'z'"):
        Variable("z[:2]", "term").codes({"z": categorical})


def test_codes_of_other_rows_than_their_value():
    q = Independent(Normal(Z, torch.ones_like(Z)), 1)
    three = Independent(Normal(torch.zeros(3, 6), torch.ones(3, 6)), 1)
    one = Independent(Normal(torch.zeros(6), torch.ones(6)), 1)
    for code in (vaereg.Code(Z, three, q), vaereg.Code(Z, q, three), vaereg.Code(Z[:1], q, q)):
        with pytest.raises(ValueError, match="code 'z' with a posterior and a prior of its value"):
            Variable("z", "term").codes({"z": code})
    assert Variable("z", "term").codes({"z": vaereg.Code(Z, q, one)})
    with pytest.raises(ValueError, match="as many rows"):
        other = vaereg.gaussian(torch.zeros(3, 4))
        Variable(("z", "c"), "term").codes({"z": vaereg.Code(Z, q, q), "c": other})


def test_helpers():
    with pytest.raises(ValueError, match=r"t: expected as many rows in each variable"):
        same_rows("t", a=Z, b=Z[:1])
    check_width("t", [("a", 3)], None)
    with pytest.raises(ValueError, match=r"5 numbers a row.*'a' of 3 \+ 'b' of 4 = 7"):
        check_width("t", [("a", 3), ("b", 4)], 5)
    with pytest.raises(ValueError, match="at least 2 rows of variable 'z', got 1"):
        check_varies("t", "z", Z[:1])
    with pytest.raises(ValueError, match="'z' to vary over the batch, got 4 equal rows"):
        check_varies("t", "z", torch.ones(4, 2))


def test_a_slice_beyond_the_width_is_named():
    z = {"z": torch.zeros(4, 3)}
    assert Variable("z[:3]", "t").values(z).shape == (4, 3)
    with pytest.raises(ValueError, match=r"'z\[:20\]' inside of 'z' of width 3"):
        Variable("z[:20]", "t").values(z)


def test_a_variable_may_be_called_term():
    import vaereg

    z = vaereg.gaussian(torch.zeros(4, 4))
    assert float(vaereg.KL("term")({"term": z})) == 0.0


def test_a_part_of_a_code_with_a_shared_prior():
    from torch.distributions import Independent, Normal

    import vaereg

    q = Independent(Normal(torch.ones(4, 3), torch.ones(4, 3)), 1)
    p = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    code = vaereg.Code(torch.zeros(4, 3), q, p)
    assert float(vaereg.KL("z[:2]")({"z": code})) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="expected code 'z' with a posterior"):
        vaereg.KL("z")({"z": vaereg.Code(torch.zeros(4, 7), q, p)})
