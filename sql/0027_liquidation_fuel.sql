-- The liquidation map's summary beside a signal and in an alert's receipt (docs/levels.md).
-- Belongs here: which map was known at a moment. Does not: the map (0023).

-- A map of T is drawn a minute after T. Two minutes later it is taken to have been known, however late it was drawn, so
-- that a point looks the same live and afterwards; a quarter of an hour later it no longer speaks for the moment.
CREATE FUNCTION liquidation_fuel(of_world text, of_symbol text, at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT jsonb_build_object(
        'time', to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'),
        'method_version', method_version,
        'reference_usd', reference_usd,
        'long_within_1_usd', long_within_1_usd,
        'long_within_3_usd', long_within_3_usd,
        'long_within_5_usd', long_within_5_usd,
        'short_within_1_usd', short_within_1_usd,
        'short_within_3_usd', short_within_3_usd,
        'short_within_5_usd', short_within_5_usd,
        'long_cluster_usd', long_cluster_usd,
        'long_cluster_price_usd', long_cluster_price_usd,
        'long_cluster_distance', long_cluster_distance,
        'short_cluster_usd', short_cluster_usd,
        'short_cluster_price_usd', short_cluster_price_usd,
        'short_cluster_distance', short_cluster_distance,
        'high_factor', high_factor,
        'coverage', coverage)
    FROM liquidation_levels
    WHERE world = of_world AND symbol = of_symbol
      AND time <= at - interval '2 minutes' AND time > at - interval '15 minutes'
    ORDER BY time DESC, created_at DESC LIMIT 1
$$;
COMMENT ON FUNCTION liquidation_fuel(text, text, timestamptz) IS 'The estimated liquidation fuel around the price as it was known at a moment; NULL: no map of the quarter of an hour before.';
