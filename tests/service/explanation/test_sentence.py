from service.explanation.sentence import Because, sentence, without

NIKE, GOLF = "brand Nike", "category Golf"


def test_a_sentence_names_the_largest_contributions_and_what_they_share():
    because = [Because("Shoes", 0.5, [NIKE, GOLF]), Because("Ball", 0.25, [GOLF]), Because("Hat", 0.2, [])]
    assert sentence("Club", "ranked", 3, 0.1, because) == (
        "“Club” ranks 3rd because this user chose “Shoes” (50% of the weight) and “Ball” (25% of the weight), "
        "which share category Golf with it."
    )
    assert sentence("Club", "ranked", 1, 0.0, because[:1]) == (
        "“Club” ranks 1st because this user chose “Shoes” (50% of the weight), which shares brand Nike and category "
        "Golf with it."
    )


def test_what_only_one_of_them_shares_is_said_of_that_one():
    because = [Because("Shoes", 0.5, [NIKE]), Because("Ball", 0.25, [GOLF])]
    assert sentence("Club", "ranked", 11, 0.1, because).endswith("; “Shoes” shares brand Nike with it.")


def test_a_large_share_of_the_user_s_own_vector_is_said():
    text = sentence("Club", "ranked", 2, 0.6, [Because("Ball", 0.3, [])])
    assert text.endswith("More of it (60%) is what the model has learned of the user as a whole.")
    assert sentence("Club", "ranked", 22, 0.99, []) == (
        "“Club” ranks 22nd by what the model has learned of this user as a whole."
    )


def test_little_and_negative_contributions_are_no_reason():
    assert sentence("Club", "ranked", 112, -0.4, [Because("Ball", -0.6, [NIKE]), Because("Hat", 0.001, [])]) == (
        "“Club” ranks 112th although nothing that this user chose speaks for it."
    )


def test_what_has_no_rank_is_said():
    assert "nothing is known of this user's taste" in sentence("Club", "popular", 0, 0.0, [])
    assert sentence("Club", "awaited", 0, 0.0, []) == (
        "“Club” stands at the list's end, by its number of users: that they chose it counts from the next refresh on."
    )
    assert sentence("Club", "unknown", 0, 0.0, []) == (
        "“Club” stands at the list's end, by its number of users: nothing is known yet that would place it "
        "(interactions, or entities or features that the model knows)."
    )
    assert sentence("Club", "withdrawn", 0, 0.2, [Because("Ball", 0.5, [])]) == "“Club” is withdrawn: no list holds it."


def test_what_was_chosen_already_is_not_explained_by_itself():
    own = Because("Club", 0.6, [NIKE, GOLF], itself=True)
    assert sentence("Club", "seen", 0, 0.1, [own, Because("Ball", 0.3, [GOLF])]) == (
        "“Club” was chosen already; its score comes from the choice itself (60% of the weight) and “Ball” (30% of the "
        "weight); “Ball” shares category Golf with it."
    )
    assert sentence("Club", "seen", 0, 0.1, [own]) == (
        "“Club” was chosen already; its score comes from the choice itself (60% of the weight)."
    )
    assert sentence("Club", "seen", 0, 0.9, []) == (
        "“Club” was chosen already; its score comes from what the model has learned of this user as a whole."
    )
    assert sentence("Club", "seen", 0, -0.1, [Because("Ball", -0.9, [])]) == (
        "“Club” was chosen already; nothing that this user chose speaks for it."
    )
    assert sentence("Club", "seen", 0, 0.0, [Because("Club", 0.0, [], itself=True)]) == (
        "“Club” was chosen already; it has no score yet."
    )


def test_a_counterfactual_in_words():
    assert without(["Ball"], 25, "Hat") == "Without “Ball” it would fall to rank 25, and “Hat” would come in."
    assert without(["Ball", "Cap", "Net"], None, None) == "Without “Ball”, “Cap” and “Net” it would leave the list."
