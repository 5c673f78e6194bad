"""Functions whose value follows from their arguments alone, by engine, and a check that SQL calls no others.

A replay and a verification compute a value again and compare it: a function of the clock, of chance, of the session or
of the place gives another one. The lists are those of the references of Spark 4.2 and MariaDB 11.4. The zone of every
session is UTC. Names are read from the tokens of the text, because a parser gives several functions one name.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from sqlglot.tokenizer_core import Token, TokenType

from tidemill.errors import SpecError
from tidemill.errors.suggestion import suggestion
from tidemill.spec.checks.parsing import tokens_of


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SPARK = _words(
    """
    abs acos acosh add_months aes_decrypt aggregate approx_top_k_estimate array array_append array_compact
    array_contains array_distinct array_except array_insert array_intersect array_join array_max array_min
    array_position array_prepend array_remove array_repeat array_size array_sort array_union arrays_overlap
    arrays_zip ascii asin asinh assert_true atan atan2 atanh base64 bigint bin binary bit_count bit_get
    bit_length bitmap_bit_position bitmap_bucket_number bitmap_count boolean bround btrim cardinality cast
    cbrt ceil ceiling char char_length character_length chr coalesce collate collation concat concat_ws
    contains conv convert_timezone cos cosh cot crc32 csc date date_add date_diff date_format
    date_from_unix_date date_part date_sub date_trunc dateadd datediff datepart day dayname dayofmonth
    dayofweek dayofyear dec decimal decode degrees double e element_at elt encode endswith equal_null exists
    exp expm1 extract factorial filter find_in_set flatten float floor forall format_number format_string
    from_csv from_json from_unixtime from_utc_timestamp from_xml get get_json_object getbit greatest hash hex
    hll_sketch_estimate hll_union hour hypot if ifnull ilike initcap instr int is_valid_utf8 is_valid_variant
    is_variant_null isnan isnotnull isnull json_array_length json_object_keys kll_sketch_get_n_bigint
    kll_sketch_get_n_double kll_sketch_get_n_float kll_sketch_get_quantile_bigint
    kll_sketch_get_quantile_double kll_sketch_get_quantile_float kll_sketch_get_rank_bigint
    kll_sketch_get_rank_double kll_sketch_get_rank_float kll_sketch_merge_bigint kll_sketch_merge_double
    kll_sketch_merge_float kll_sketch_to_string_bigint kll_sketch_to_string_double kll_sketch_to_string_float
    last_day lcase least left len length levenshtein like ln locate log log10 log1p log2 lower lpad ltrim
    luhn_check make_date make_dt_interval make_interval make_time make_timestamp make_timestamp_ltz
    make_timestamp_ntz make_valid_utf8 make_ym_interval map map_concat map_contains_key map_entries map_filter
    map_from_arrays map_from_entries map_keys map_values map_zip_with mask md5 minute mod month monthname
    months_between named_struct nanvl negative next_day nullif nullifzero numeric nvl nvl2 octet_length
    overlay parse_json parse_url pi pmod position positive pow power printf quarter quote radians raise_error
    reduce regexp regexp_count regexp_extract regexp_extract_all regexp_instr regexp_like regexp_replace
    regexp_substr repeat replace reverse right rint rlike round rpad rtrim schema_of_csv schema_of_json
    schema_of_variant schema_of_xml sec second sentences sequence sha sha1 sha2 shiftleft shiftright
    shiftrightunsigned sign signum sin sinh size slice smallint sort_array soundex space split split_part sqrt
    st_asbinary st_geogfromwkb st_geomfromwkb st_setsrid st_srid startswith str_to_map string struct substr
    substring substring_index tan tanh theta_difference theta_intersection theta_sketch_estimate theta_union
    time time_bucket time_diff time_from_micros time_from_millis time_from_seconds time_to_micros
    time_to_millis time_to_seconds time_trunc timestamp timestamp_ltz timestamp_micros timestamp_millis
    timestamp_ntz timestamp_seconds timestampadd timestampdiff tinyint to_binary to_char to_csv to_date
    to_json to_number to_time to_timestamp to_timestamp_ltz to_timestamp_ntz to_unix_timestamp
    to_utc_timestamp to_varchar to_variant_object to_xml transform transform_keys transform_values translate
    trim trunc try_add try_aes_decrypt try_cast try_divide try_element_at try_make_interval try_make_timestamp
    try_make_timestamp_ltz try_make_timestamp_ntz try_mod try_multiply try_parse_json try_parse_url
    try_subtract try_to_binary try_to_date try_to_number try_to_time try_to_timestamp try_url_decode
    try_validate_utf8 try_variant_get tuple_difference_double tuple_difference_integer
    tuple_difference_theta_double tuple_difference_theta_integer tuple_intersection_double
    tuple_intersection_integer tuple_intersection_theta_double tuple_intersection_theta_integer
    tuple_sketch_estimate_double tuple_sketch_estimate_integer tuple_sketch_summary_double
    tuple_sketch_summary_integer tuple_sketch_theta_double tuple_sketch_theta_integer tuple_union_double
    tuple_union_integer tuple_union_theta_double tuple_union_theta_integer typeof ucase unbase64 unhex
    unix_date unix_micros unix_millis unix_seconds unix_timestamp upper url_decode url_encode validate_utf8
    varchar variant_get vector_avg vector_cosine_similarity vector_inner_product vector_l2_distance
    vector_norm vector_normalize vector_sum weekday weekofyear when width_bucket xpath xpath_boolean
    xpath_double xpath_float xpath_int xpath_long xpath_number xpath_short xpath_string xxhash64 year
    zeroifnull zip_with
    """
)
"""Row-wise functions of Spark. A cipher with a random vector and what calls Java are left out."""

DATABASE = _words(
    """
    abs acos add_months adddate addtime ascii asin atan atan2 bin binary bit_count bit_length cast ceil
    ceiling char char_length character_length chr coalesce concat concat_ws conv convert cos cot crc32 crc32c
    date date_add date_format date_sub datediff datetime day dayname dayofmonth dayofweek dayofyear dec
    decimal degrees double elt exp export_set extract extractvalue field find_in_set fixed float floor format
    format_bytes format_pico_time from_base64 from_days from_unixtime get_format greatest hex hour if ifnull
    inet6_aton inet6_ntoa inet_aton inet_ntoa insert instr int integer interval is_ipv4 is_ipv4_compat
    is_ipv4_mapped is_ipv6 isnull json_array json_array_append json_array_insert json_array_intersect
    json_compact json_contains json_contains_path json_depth json_detailed json_equals json_exists
    json_extract json_insert json_key_value json_keys json_length json_loose json_merge json_merge_patch
    json_merge_preserve json_normalize json_object json_object_filter_keys json_object_to_array json_overlaps
    json_pretty json_query json_quote json_remove json_replace json_schema_valid json_search json_set
    json_type json_unquote json_valid json_value last_day lcase least left length lengthb ln locate log log10
    log2 lower lpad ltrim make_set makedate maketime md5 microsecond mid minute mod month monthname
    months_between natural_sort_key nchar nullif numeric nvl nvl2 oct octet_length ord period_add period_diff
    pi point position pow power quarter quote radians regexp_instr regexp_replace regexp_substr repeat replace
    reverse right round rpad rtrim sec_to_time second sha sha1 sha2 sign signed sin soundex space sqrt st_area
    st_astext st_contains st_distance st_distance_sphere st_geomfromtext st_intersects st_length
    st_pointfromtext st_within st_x st_y str_to_date strcmp subdate substr substring substring_index subtime
    tan time time_format time_to_sec timediff timestamp timestampadd timestampdiff to_base64 to_char to_days
    to_seconds trim truncate ucase unhex unix_timestamp unsigned upper varbinary varchar week weekday
    weekofyear weight_string xxh3 xxh32 year yearweek
    """
)
"""Row-wise functions of the database."""

OVER_ROWS = _words(
    """
    avg bit_and bit_or bit_xor count cume_dist dense_rank first_value group_concat json_arrayagg
    json_objectagg json_table lag last_value lead max median min nth_value ntile percent_rank percentile_cont
    percentile_disc rank row_number std stddev stddev_pop stddev_samp sum var_pop var_samp variance
    """
)
"""Functions of the database over several rows, which a feature query may use."""

_SYNTAX = _words(
    """
    all and any as between by case div distinct else end escape except exists for from group having ilike in index
    intersect is join key lateral like limit mod not on or over partition regexp rlike rows select separator some then
    union using values when where window within with xor
    """
)
"""Words after which a parenthesis opens that holds no arguments."""
_WITHOUT_PARENTHESES = _words(
    """
    current_catalog current_database current_date current_role current_schema current_time current_timestamp
    current_timezone current_user localtime localtimestamp session_user utc_date utc_time utc_timestamp
    """
)
_CLOCK = _words(
    """
    curdate current_date current_time current_timestamp curtime localtime localtimestamp now sysdate unix_timestamp
    utc_date utc_time utc_timestamp
    """
)
_IMPURE = _words(
    """
    aes_encrypt benchmark connection_id convert_tz current_catalog current_database current_role current_schema
    current_timezone current_user database found_rows get_lock input_file_block_length input_file_block_start
    input_file_name is_free_lock is_used_lock java_method last_insert_id lastval load_file master_pos_wait
    monotonically_increasing_id nextval rand randn random random_bytes randstr reflect release_all_locks release_lock
    row_count schema session_user setval shuffle sleep spark_partition_id sys_guid system_user try_reflect uniform user
    uuid uuid_short uuid_v4 uuid_v7 version
    """
)
_INSTEAD_OF_CLOCK = {
    "spark": "use a time that the record has: a field, or _timestamp, at which Kafka received it",
    "mysql": "use a time that the row has: a column of the table",
}
_INSTEAD = "use only what the row itself contains"
_NAME = re.compile(r"`(?:[^`]|``)+`|[A-Za-z_][A-Za-z0-9_$]*")
_VARIABLES = (TokenType.PARAMETER, TokenType.SESSION_PARAMETER, TokenType.PLACEHOLDER, TokenType.COLON_EQ)


def check_functions(
    place: str, sql: str, dialect: str, *, over_rows: bool = False, named: Collection[str] = ()
) -> None:
    """Reject a text whose value depends on more than the rows that it reads.

    Args:
        place: where the text is, for the message.
        sql: an expression or a query.
        dialect: ``spark`` or ``mysql``.
        over_rows: whether functions over several rows are allowed.
        named: names that are no functions although a parenthesis follows, such as that of a WITH.

    Raises:
        SpecError: it calls a function that is not in the lists, or reads a variable.
    """
    known = SPARK if dialect == "spark" else DATABASE | (OVER_ROWS if over_rows else frozenset())
    tokens = tokens_of(place, sql, dialect)
    for index, token in enumerate(tokens):
        is_marker = token.token_type is TokenType.COLON and dialect == "mysql"  # a type of Spark may have a colon
        if is_marker or token.token_type in _VARIABLES:
            raise SpecError("TM-SPEC-SQL-VARIABLE", value=sql[token.start : token.start + 40], place=place)
        written = sql[token.start : token.end + 1]
        if not _NAME.fullmatch(written):
            continue
        name, following = written.strip("`").lower(), _kinds(tokens, index + 1)
        is_call = following[:1] == [TokenType.L_PAREN]
        if is_call and name not in named:
            _check_call(place, name, dialect, known, after_dot=_is_dot(tokens, index - 1), following=following)
        is_column = written.startswith("`") or _is_dot(tokens, index - 1) or _is_dot(tokens, index + 1)
        if not is_call and not is_column and name in _WITHOUT_PARENTHESES:
            raise _impure(place, name, dialect)


def _check_call(
    place: str, name: str, dialect: str, known: Collection[str], *, after_dot: bool, following: list[TokenType]
) -> None:
    if name in _SYNTAX and not after_dot:
        return
    without_arguments = following == [TokenType.L_PAREN, TokenType.R_PAREN]
    if name in _IMPURE or (name in _CLOCK and (name != "unix_timestamp" or without_arguments)):
        raise _impure(place, name, dialect)
    if name not in known or after_dot:
        raise SpecError("TM-SPEC-FUNCTION-UNKNOWN", value=name, place=place, suggestion=suggestion(name, known))


def _impure(place: str, name: str, dialect: str) -> SpecError:
    alternative = _INSTEAD_OF_CLOCK[dialect] if name in _CLOCK else _INSTEAD
    return SpecError("TM-SPEC-FUNCTION-IMPURE", value=name, place=place, alternative=alternative)


def _kinds(tokens: list[Token], start: int) -> list[TokenType]:
    return [token.token_type for token in tokens[start : start + 2]]


def _is_dot(tokens: list[Token], index: int) -> bool:
    return 0 <= index < len(tokens) and tokens[index].token_type is TokenType.DOT
